package client

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"
)

var opus = TrackInfo{Kind: "audio", Codec: "audio/opus", Clock: opusClock, SSRC: 1}

// recordedLength returns the duration of an Ogg file, by its pages.
func recordedLength(t *testing.T, path string) time.Duration {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, head, err := oggreader.NewWith(f)
	if err != nil {
		t.Fatal(err)
	}
	if head.PreSkip != 0 {
		t.Errorf("players leave out %d samples", head.PreSkip)
	}
	var last uint64
	for {
		_, page, err := r.ParseNextPage()
		if err != nil {
			return time.Duration(last) * time.Second / opusClock
		}
		last = max(last, page.GranulePosition)
	}
}

// A lost packet and the time between two connections last as long in the file
// as they did; late and duplicate packets add nothing.
func TestAudioRecorderKeepsTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.ogg")
	r, err := NewAudioRecorder(path)
	if err != nil {
		t.Fatal(err)
	}
	send := func(track TrackInfo, first, base uint32, skip ...int) {
		for i := range 100 { // two seconds
			lost := false
			for _, s := range skip {
				lost = lost || s == i
			}
			if lost {
				continue
			}
			p := &rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(first) + uint16(i), Timestamp: base + uint32(i)*960, SSRC: track.SSRC}, Payload: []byte{0xfc, 1, 2, 3}}
			r.Write(track, p)
			if i == 50 {
				r.Write(track, p)
			}
		}
	}
	send(opus, 65500, 1<<32-9600, 10, 11, 12) // numbers and timestamps wrap
	r.Write(TrackInfo{Kind: "video", SSRC: 9}, &rtp.Packet{})
	r.Resume(3 * time.Second)
	second := opus
	second.SSRC = 2
	send(second, 7, 12345)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r.Packets() != 197 {
		t.Errorf("%d packets written", r.Packets())
	}
	if got := recordedLength(t, path); got < 6980*time.Millisecond || got > 7020*time.Millisecond {
		t.Errorf("it plays %v, want 7 s", got)
	}
}

func TestAudioRecorderRefuses(t *testing.T) {
	if _, err := NewAudioRecorder(filepath.Join(t.TempDir(), "no", "a.ogg")); err == nil {
		t.Error("a directory that is not there is no error")
	}
	r, err := NewAudioRecorder(filepath.Join(t.TempDir(), "a.ogg"))
	if err != nil {
		t.Fatal(err)
	}
	r.Write(TrackInfo{Kind: "audio", Codec: "audio/PCMA"}, &rtp.Packet{Payload: []byte{1}})
	if err := r.Close(); err == nil || !strings.Contains(err.Error(), "audio/PCMA cannot be written") {
		t.Errorf("Close = %v", err)
	}
}

func TestOpusLength(t *testing.T) {
	for _, c := range []struct {
		packet []byte
		want   uint32
	}{
		{nil, 0}, {[]byte{0xfc}, 960}, {[]byte{0xf8 | 1}, 1920}, {[]byte{0}, 480}, {[]byte{3 << 3}, 2880}, {[]byte{13 << 3}, 960}, {[]byte{16 << 3}, 120},
		{[]byte{0xfc | 3}, 0}, {[]byte{0xfc | 3, 3}, 2880}, {[]byte{0xfc | 3, 7}, 0}, {[]byte{0xfc | 3, 0}, 0},
	} {
		if got := opusLength(c.packet); got != c.want {
			t.Errorf("% x plays %d, want %d", c.packet, got, c.want)
		}
	}
}

func FuzzAudioRecorder(f *testing.F) {
	f.Add([]byte{0xfc, 1, 2}, uint32(960), uint16(1))
	f.Add([]byte{0xff}, uint32(1<<31), uint16(60000))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, payload []byte, timestamp uint32, seq uint16) {
		path := filepath.Join(dir, "a.ogg")
		r, err := NewAudioRecorder(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range [][]byte{{0xfc, 1}, payload, {0xfc, 2}} {
			r.Write(opus, &rtp.Packet{Header: rtp.Header{SequenceNumber: seq * uint16(i), Timestamp: timestamp * uint32(i), SSRC: 1}, Payload: p})
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() > 16<<20 {
			t.Errorf("%v, %v", info, err)
		}
	})
}
