package client

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

func TestPattern(t *testing.T) {
	s := Pattern()
	if len(patternVideo)+len(patternAudio) > 1<<20 {
		t.Errorf("the clip takes %d bytes", len(patternVideo)+len(patternAudio))
	}
	video, audio := s.tracks[0], s.tracks[1]
	if s.Length() != 10*time.Second || len(video.frames) != 300 {
		t.Errorf("%v, %d frames; want 10 s of 300", s.Length(), len(video.frames))
	}
	since := 0
	for i, f := range video.frames {
		if want := time.Duration(i) * time.Second / 30; f.at != want {
			t.Fatalf("frame %d at %v, want %v", i, f.at, want)
		}
		if since++; f.key {
			since = 0
		} else if since >= 15 {
			t.Fatalf("no keyframe in the 15 before frame %d", i)
		}
	}
	for i, f := range audio.frames {
		if want := time.Duration(i) * 20 * time.Millisecond; f.at != want || f.last != 20*time.Millisecond {
			t.Fatalf("packet %d at %v for %v, want %v for 20ms", i, f.at, f.last, want)
		}
	}
}

func TestOpen(t *testing.T) {
	for _, c := range []struct {
		file   string
		codec  string
		fmtp   string
		frames int
		length time.Duration
		keys   int
	}{
		{"testdata/vp9.ivf", webrtc.MimeTypeVP9, "profile-id=0", 30, time.Second, 3},
		{"testdata/av1.ivf", webrtc.MimeTypeAV1, "", 30, time.Second, 3},
		{"testdata/baseline.h264", webrtc.MimeTypeH264, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42c00b", 30, 30 * defaultFrame, 3},
		{"testdata/paged.ogg", webrtc.MimeTypeOpus, "minptime=10;useinbandfec=1", 101, 1010 * time.Millisecond, 101},
	} {
		s, err := Open(c.file)
		if err != nil {
			t.Errorf("Open: %v", err)
			continue
		}
		track, keys := s.tracks[0], 0
		for _, f := range track.frames {
			if f.key {
				keys++
			}
		}
		if track.codec.MimeType != c.codec || track.codec.SDPFmtpLine != c.fmtp {
			t.Errorf("%s: %s %s, want %s %s", c.file, track.codec.MimeType, track.codec.SDPFmtpLine, c.codec, c.fmtp)
		}
		if len(track.frames) != c.frames || keys != c.keys || s.Length().Round(time.Millisecond) != c.length.Round(time.Millisecond) {
			t.Errorf("%s: %d frames, %d keyframes, %v; want %d, %d, %v", c.file, len(track.frames), keys, s.Length(), c.frames, c.keys, c.length)
		}
	}
}

// The error must name the file and the expected content.
func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	edit := func(b []byte, at int, with ...byte) string {
		b = append([]byte(nil), b...)
		copy(b[at:], with)
		return string(b)
	}
	second := 32 + 12 + int(binary.LittleEndian.Uint32(patternVideo[32:])) // where frame 1's header is
	h264, err := os.ReadFile("testdata/baseline.h264")
	if err != nil {
		t.Fatal(err)
	}
	// The stream from its second picture on, from which no decoder can start.
	tail := string(h264[strings.Index(string(h264[100:]), "\x00\x00\x00\x01\x09")+100:])

	for _, c := range []struct {
		name, file, content, want string
	}{
		{"empty", "a.ivf", "", "is empty; expected IVF"},
		{"unknown suffix", "a.mp4", "....ftypisom", "expected .ivf (VP8, VP9, AV1), .h264 (Annex B) or .ogg (Opus)"},
		{"not IVF", "a.ivf", "RIFF....AVI ", `begins with "DKIF"`},
		{"not Ogg", "a.ogg", "ID3.........", `begins with "OggS"`},
		{"not Annex B", "a.h264", "....ftypisom", "expected an H264 Annex B byte stream"},
		{"short IVF header", "a.ivf", "DKIF", "header of 32 bytes"},
		{"IVF version", "a.ivf", edit(patternVideo, 4, 1), "IVF version 1"},
		{"IVF header size", "a.ivf", edit(patternVideo, 6, 0), "IVF header of 0 bytes"},
		{"IVF codec", "a.ivf", edit(patternVideo, 8, 'M', 'J', 'P', 'G'), `IVF of codec "MJPG"; expected VP80, VP90 or AV01`},
		{"IVF time base", "a.ivf", edit(patternVideo, 16, 0, 0, 0, 0), "IVF time base 1/0"},
		{"IVF without frames", "a.ivf", string(patternVideo[:32]), "IVF without a frame"},
		{"IVF cut in a frame", "a.ivf", string(patternVideo[:1000]), "left in the file"},
		{"IVF cut in a frame's header", "a.ivf", string(patternVideo[:second+5]), "IVF frame 1: cut off in its header"},
		{"IVF frame of 4 GiB", "a.ivf", edit(patternVideo, 32, 0xff, 0xff, 0xff, 0xff), "4294967295 bytes expected"},
		{"IVF times that stand still", "a.ivf", edit(patternVideo, second+4, 0), "does not follow the one before"},
		{"IVF times beyond reason", "a.ivf", edit(patternVideo, second+10, 0xff), "beyond 24h"},
		{"IVF that begins without a keyframe", "a.ivf", string(patternVideo[:32]) + string(patternVideo[second:]), "first frame is not a keyframe"},
		{"Ogg cut off", "a.ogg", string(patternAudio[:30]), "Ogg page 0"},
		{"Ogg damaged", "a.ogg", edit(patternAudio, 40, 0xaa), "the file is damaged"},
		{"Ogg of headers alone", "a.ogg", string(patternAudio[:47]), "without an Opus packet"},
		{"Annex B that begins without a keyframe", "a.h264", tail, "first frame is not a keyframe"},
		{"Annex B without parameter sets", "a.h264", "\x00\x00\x01\x65\x88\x80", "without parameter sets"},
		{"Annex B of nothing", "a.h264", "\x00\x00\x00\x01\x09\xf0", "without a picture"},
	} {
		path := filepath.Join(dir, c.file)
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(path)
		if !errors.Is(err, ErrBadMedia) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v\nwant it to name %s and say %q", c.name, err, path, c.want)
		}
	}

	if _, err := Open(filepath.Join(dir, "absent.ivf")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrBadMedia) || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("directory: %v", err)
	}
	if _, err := Open(); !errors.Is(err, ErrBadMedia) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open("testdata/vp9.ivf", "testdata/av1.ivf"); !errors.Is(err, ErrBadMedia) || !strings.Contains(err.Error(), "at most one video") {
		t.Errorf("two videos: %v", err)
	}
}

func TestOpusDuration(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name   string
		packet []byte
		want   time.Duration
	}{
		{"SILK 60 ms", []byte{3 << 3}, 60 * ms},
		{"hybrid 20 ms", []byte{13 << 3}, 20 * ms},
		{"CELT 2.5 ms", []byte{16 << 3}, 2500 * time.Microsecond},
		{"CELT 20 ms, two frames", []byte{31<<3 | 1}, 40 * ms},
		{"CELT 20 ms, six frames", []byte{31<<3 | 3, 6}, 120 * ms},
		{"longer than a packet may be", []byte{31<<3 | 3, 7}, 0},
		{"no frame", []byte{31<<3 | 3, 0}, 0},
		{"frame count cut off", []byte{31<<3 | 3}, 0},
		{"empty", nil, 0},
	} {
		if got := opusDuration(c.packet); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// FuzzReadTrack passes damaged files to the readers. The timeline must be able
// to play any file that they accept.
func FuzzReadTrack(f *testing.F) {
	for _, name := range []string{"vp9.ivf", "av1.ivf", "baseline.h264", "paged.ogg"} {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(filepath.Ext(name), b)
	}
	f.Add(".ivf", patternVideo[:20000])
	f.Add(".ogg", patternAudio[:2000])
	f.Fuzz(func(t *testing.T, ext string, b []byte) {
		track, err := readTrack(ext, b)
		if err != nil {
			return
		}
		size := 0
		for _, fr := range track.frames {
			size += len(fr.data)
			if fr.last <= 0 || fr.at < 0 {
				t.Fatalf("frame at %v for %v", fr.at, fr.last)
			}
		}
		// Annex B's short start codes become long ones.
		if size > 2*len(b) {
			t.Fatalf("%d bytes of frames from a file of %d", size, len(b))
		}
		src, err := newSource(track)
		if err != nil {
			return
		}
		l, last := newTimeline(src), time.Duration(-1)
		for range 2 * len(track.frames) {
			i, _, due, ok := l.peek()
			if !ok || due <= last {
				t.Fatalf("due at %v after %v", due, last)
			}
			l.advance(i)
			last = due
		}
	})
}
