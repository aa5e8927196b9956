package sfu

import (
	"bufio"
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
)

// follow reads the events of the session that resp answers, until the test ends.
func follow(t *testing.T, resp *http.Response, wanted string) <-chan string {
	t.Helper()
	var entry string
	for _, link := range resp.Header.Values("Link") {
		if m := regexp.MustCompile(`^<([^>]+)>; rel="urn:ietf:params:whep:ext:core:server-sent-events"; events="[a-z,]+"$`).FindStringSubmatch(link); m != nil {
			entry = m[1]
		}
	}
	made, body := call(t, "POST", entry, "application/json", wanted)
	if made.StatusCode != 201 {
		t.Fatalf("%s: %s %s", entry, made.Status, body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", made.Header.Get("Location"), nil)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	events, done := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(done)
		defer close(events)
		kind := ""
		for lines := bufio.NewScanner(stream.Body); lines.Scan(); {
			if k, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
				kind = k
			}
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				events <- kind + " " + data
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = stream.Body.Close()
		<-done
	})
	return events
}

// expect waits for an event, past others; "" waits for the end.
func expect(t *testing.T, events <-chan string, want string) {
	t.Helper()
	var seen []string
	timeout := time.After(patience)
	for {
		select {
		case e, open := <-events:
			if e == want || !open && want == "" {
				return
			}
			if !open {
				t.Fatalf("the events ended after %q, without %q", seen, want)
			}
			seen = append(seen, e)
		case <-timeout:
			t.Fatalf("no %q after %q", want, seen)
		}
	}
}

// viewRaw views a stream, and returns the answer and the packets of each kind.
func viewRaw(t *testing.T, n *meshNode, stream string, codecs ...webrtc.RTPCodecParameters) (*http.Response, map[webrtc.RTPCodecType]<-chan *rtp.Packet) {
	t.Helper()
	pc := plainPeer(t, codecs...)
	kinds := map[webrtc.RTPCodecType]chan *rtp.Packet{webrtc.RTPCodecTypeAudio: make(chan *rtp.Packet, 10_000), webrtc.RTPCodecTypeVideo: make(chan *rtp.Packet, 10_000)}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} { // in this order
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	pc.OnTrack(func(r *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := r.ReadRTP()
			if err != nil {
				return
			}
			kinds[r.Kind()] <- p
		}
	})
	resp, _ := negotiate(t, pc, n.web.URL+"/whep/"+stream)
	return resp, map[webrtc.RTPCodecType]<-chan *rtp.Packet{webrtc.RTPCodecTypeAudio: kinds[webrtc.RTPCodecTypeAudio], webrtc.RTPCodecTypeVideo: kinds[webrtc.RTPCodecTypeVideo]}
}

// A viewer at another node than the publisher hears that the stream is active,
// falls silent and returns, and how many view; and the events end with the
// session.
func TestEventsOfASession(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	codecs := []webrtc.RTPCodecParameters{param(webrtc.MimeTypeOpus, 111, ""), param(webrtc.MimeTypeVP8, 96, "")}
	tracks := publishRaw(t, a, "s", nil, codecs...)
	var silent atomic.Bool
	every(t, func() {
		if !silent.Load() {
			tracks[0].send([]byte{0xf8}, true, 480)
			tracks[1].send([]byte{0x10, 0, 0x9d, 1, 0x2a}, true, 900)
		}
	})
	resp, _ := viewRaw(t, b, "s", codecs...)
	events := follow(t, resp, `["active","inactive","viewercount","reconnect"]`)
	expect(t, events, `viewercount {"viewercount":1}`)
	expect(t, events, "active {}")
	viewRaw(t, b, "s", codecs...)
	expect(t, events, `viewercount {"viewercount":2}`)
	silent.Store(true)
	expect(t, events, "inactive {}")
	silent.Store(false)
	expect(t, events, "active {}")
	if open, _ := b.Clients().EventStreams(); open != 1 {
		t.Errorf("%d event streams are open", open)
	}
	if r, body := call(t, "DELETE", resp.Header.Get("Location"), "", ""); r.StatusCode != 200 {
		t.Fatalf("DELETE: %s %s", r.Status, body)
	}
	expect(t, events, "")

	layered, _ := viewRaw(t, b, "s", codecs...)
	events = follow(t, layered, "")
	expect(t, events, `layers {"1":[{"spatialLayerId":0,"temporalLayerId":0,"active":true}]}`)
}

// A viewer that pauses its video gets none, and its audio goes on; then video
// goes on with a keyframe, in the same numbering.
func TestPausedVideo(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	codecs := []webrtc.RTPCodecParameters{param(webrtc.MimeTypeOpus, 111, ""), param(webrtc.MimeTypeVP8, 96, "")}
	tracks := publishRaw(t, a, "s", nil, codecs...)
	n := 0
	every(t, func() {
		tracks[0].send([]byte{0xf8}, true, 480)
		payload := []byte{0x10, 0x01} // depends on others
		if n++; n%40 == 0 {
			payload = []byte{0x10, 0x00}
		}
		tracks[1].send(payload, true, 900)
	})
	resp, packets := viewRaw(t, a, "s", codecs...)
	audio, video := packets[webrtc.RTPCodecTypeAudio], packets[webrtc.RTPCodecTypeVideo]
	next(t, video)
	url := resp.Header.Get("Location") + "/media"
	set := func(body, want string) {
		t.Helper()
		if r, got := call(t, "PATCH", url, "application/json", body); r.StatusCode != 200 || strings.TrimSpace(got) != want {
			t.Fatalf("%s is answered %s %s, want %s", body, r.Status, got, want)
		}
	}
	set(`{"video":false}`, `{"audio":true,"video":false}`)
	var last *rtp.Packet
	for drained := false; !drained; { // what was on its way
		for range 20 {
			next(t, audio)
		}
		select {
		case last = <-video:
			for len(video) > 0 {
				last = <-video
			}
		default:
			drained = true
		}
	}
	for range 60 {
		next(t, audio)
	}
	if k := len(video); k > 0 {
		t.Errorf("%d packets of video while it is paused", k)
	}
	set(`{"video":true}`, `{"audio":true,"video":true}`)
	p := next(t, video)
	if p.Payload[1] != 0 {
		t.Errorf("video goes on with % x, no keyframe", p.Payload)
	}
	if last != nil && (p.SequenceNumber != last.SequenceNumber+1 || int32(p.Timestamp-last.Timestamp) <= 0) {
		t.Errorf("packet %d of time %d after %d of %d", p.SequenceNumber, p.Timestamp, last.SequenceNumber, last.Timestamp)
	}
	set(`{"audio":false,"video":false}`, `{"audio":false,"video":false}`)
	if r, body := call(t, "PATCH", url, "application/json", `{"data":1}`); r.StatusCode != 200 {
		t.Errorf("an unknown kind: %s %s", r.Status, body)
	}
}
