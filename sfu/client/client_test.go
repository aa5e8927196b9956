package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtp"
	"go.uber.org/goleak"

	"weir/sfu/keyframe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// publish starts a publisher of src that runs until the test ends.
func publish(t *testing.T, url string, src *Source) *Publisher {
	t.Helper()
	p, err := Publish(t.Context(), PublishConfig{URL: url, Media: src})
	if err != nil {
		t.Fatalf("publish: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		p.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ran
		if err := p.Close(); err != nil {
			t.Errorf("close publisher: %v", err)
		}
	})
	return p
}

func view(t *testing.T, cfg ViewConfig) *Viewer {
	t.Helper()
	v, err := View(t.Context(), cfg)
	if err != nil {
		t.Fatalf("view: %v", err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("close viewer: %v", err)
		}
	})
	return v
}

// eventually waits until ok, which reads live state, is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for !ok() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestPublishAndView(t *testing.T) {
	s := newEchoServer(t, 2)
	p := publish(t, s.URL+"/whip", Pattern())
	v := view(t, ViewConfig{URL: s.URL + "/whep"})
	defer func() {
		if t.Failed() {
			t.Logf("viewer: %+v", v.Stats())
			t.Logf("publisher: %+v", p.Stats())
		}
	}()
	select {
	case <-v.FirstFrame():
	case <-time.After(10 * time.Second):
		t.Fatal("no frame within 10 s")
	}
	eventually(t, "a second of video and audio, with reports", func() bool {
		st := v.Stats()
		return st.Frames >= 60 && st.Skew != nil && p.Stats().Acked
	})
	st := v.Stats()
	if !(0 < st.Answered && st.Answered < st.ICE && st.ICE < st.Connected && st.Connected < st.FirstPacket &&
		st.FirstPacket <= st.FirstKeyframe && st.FirstKeyframe <= st.FirstFrame) {
		t.Errorf("times out of order: answer %v, ICE %v, connected %v, packet %v, keyframe %v, frame %v",
			st.Answered, st.ICE, st.Connected, st.FirstPacket, st.FirstKeyframe, st.FirstFrame)
	}
	if st.Latency == nil || st.Latency.Count != st.Packets || st.Latency.P50 <= 0 {
		t.Errorf("latency %+v of %d packets", st.Latency, st.Packets)
	}
	if st.Lost != 0 {
		t.Errorf("lost %d packets on loopback", st.Lost)
	}
	if d := st.Skew.Abs(); d > 50*time.Millisecond {
		t.Errorf("video %v after audio", *st.Skew)
	}
	for _, track := range st.Tracks {
		if track.Duplicates+track.Resets+track.Backwards > 0 {
			t.Errorf("%s: %d duplicates, %d resets, %d steps back", track.Kind, track.Duplicates, track.Resets, track.Backwards)
		}
	}
}

// A server with full ICE finds the client by its candidates.
func TestFullICEServer(t *testing.T) {
	t.Parallel()
	s := newEchoServer(t, 2)
	s.full = true
	publish(t, s.URL+"/whip", Pattern())
	v := view(t, ViewConfig{URL: s.URL + "/whep"})
	select {
	case <-v.FirstFrame():
	case <-time.After(10 * time.Second):
		t.Fatal("no frame within 10 s")
	}
}

// keyframes collects the arrival times of a stream's keyframes.
type keyframes struct {
	mu    sync.Mutex
	at    []time.Time
	stamp uint32
}

func (k *keyframes) observe(track TrackInfo, p *rtp.Packet, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if keyframe.Is(track.Codec, p.Payload) && (len(k.at) == 0 || p.Timestamp != k.stamp) {
		k.at, k.stamp = append(k.at, at), p.Timestamp
	}
}

func (k *keyframes) since(t time.Time) (list []time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, at := range k.at {
		if at.After(t) {
			list = append(list, at)
		}
	}
	return list
}

// rareKeys is a clip with a keyframe at its start and then none for 8 s.
func rareKeys(t *testing.T) *Source {
	t.Helper()
	pattern := Pattern().tracks[0]
	sparse := clipTrack{codec: pattern.codec}
	for i := range 240 {
		f := pattern.frames[0]
		if i > 0 {
			f = pattern.frames[1+i%14]
		}
		f.at, f.last = time.Duration(i)*defaultFrame, defaultFrame
		sparse.frames = append(sparse.frames, f)
	}
	s, err := newSource(sparse)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A requested keyframe comes within a frame's time, and continuous requests
// yield one each 100 ms.
func TestKeyframeOnRequest(t *testing.T) {
	s := newEchoServer(t, 1)
	p := publish(t, s.URL+"/whip", rareKeys(t))
	var seen keyframes
	v := view(t, ViewConfig{URL: s.URL + "/whep", OnRTP: seen.observe})
	// The viewer came after the clip's only keyframe: it requests one by
	// itself.
	select {
	case <-v.FirstFrame():
	case <-time.After(5 * time.Second):
		t.Fatal("no frame within 5 s")
	}
	if st := v.Stats(); st.Tracks[0].PLIs == 0 || st.FirstFrame > 3*time.Second {
		t.Errorf("first frame after %v and %d requests", st.FirstFrame, st.Tracks[0].PLIs)
	}

	var worst time.Duration
	for range 5 {
		last := seen.since(time.Time{})
		eventually(t, "time to ask again", func() bool { return time.Since(last[len(last)-1]) > 150*time.Millisecond })
		asked := time.Now()
		s.pli()
		eventually(t, "a keyframe", func() bool { return len(seen.since(asked)) > 0 })
		worst = max(worst, seen.since(asked)[0].Sub(asked))
	}
	t.Logf("slowest keyframe after %v", worst)
	// One frame's time, and a margin for a busy machine.
	if worst > 33*time.Millisecond+100*time.Millisecond {
		t.Errorf("keyframe %v after it was asked for", worst)
	}

	begun := time.Now()
	eventually(t, "a second of asking", func() bool { s.pli(); return time.Since(begun) > time.Second })
	if n := len(seen.since(begun)); n < 5 || n > 12 {
		t.Errorf("%d keyframes in a second of asking, want about 10", n)
	}
	if v.Stats().Tracks[0].Backwards != 0 {
		t.Error("timestamps went back over a jump")
	}
	if p.Stats().Tracks[0].PLIs == 0 {
		t.Error("the publisher counted no request")
	}
}

// every loses each nth video packet, but not its retransmission.
func every(n uint16) (lose func(*rtp.Header) bool, lost func() int) {
	var count atomic.Int64
	return func(h *rtp.Header) bool {
			if h.PayloadType != 96 || h.SequenceNumber%n != 0 {
				return false
			}
			count.Add(1)
			return true
		}, func() int {
			return int(count.Load())
		}
}

// Packets lost on the way to the server are sent again on request.
func TestPublisherRepairs(t *testing.T) {
	t.Parallel()
	s := newEchoServer(t, 2)
	var lost func() int
	s.loseIn, lost = every(10)
	p := publish(t, s.URL+"/whip", Pattern())
	v := view(t, ViewConfig{URL: s.URL + "/whep"})
	eventually(t, "repaired video", func() bool { return v.Stats().Frames > 90 })
	st := v.Stats()
	// Losses of the last 100 ms may not have been requested yet.
	if dropped := lost(); dropped < 10 || st.Lost > 3 {
		t.Errorf("%d packets dropped, %d missing at the viewer", dropped, st.Lost)
	}
	if n := p.Stats().Tracks[0].NACKs; n < 10 {
		t.Errorf("%d packets asked for", n)
	}
}

// Packets lost on the way to the viewer are requested, usually once each.
func TestViewerRepairs(t *testing.T) {
	t.Parallel()
	s := newEchoServer(t, 2)
	var lost func() int
	s.loseOut, lost = every(10)
	publish(t, s.URL+"/whip", Pattern())
	v := view(t, ViewConfig{URL: s.URL + "/whep"})
	eventually(t, "repaired video", func() bool { return v.Stats().Frames > 90 })
	st := v.Stats()
	var asked uint64
	for _, track := range st.Tracks {
		asked += track.NACKs
	}
	if dropped := lost(); dropped < 10 || st.Lost > 2 || asked > 2*uint64(dropped) {
		t.Errorf("%d packets dropped, asked for %d, %d still missing", dropped, asked, st.Lost)
	}
}

// For every codec, a clip from a file is published, viewed and recorded, and
// comes out unchanged.
func TestCodecs(t *testing.T) {
	for _, file := range []string{"testdata/vp9.ivf", "testdata/av1.ivf", "testdata/baseline.h264", "clip/pattern.ivf"} {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			src, err := Open(file, "testdata/paged.ogg")
			if err != nil {
				t.Fatal(err)
			}
			s := newEchoServer(t, 2)
			publish(t, s.URL+"/whip", src)
			path := filepath.Join(t.TempDir(), "out.ivf")
			recorder, err := NewRecorder(path)
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			v, err := View(t.Context(), ViewConfig{URL: s.URL + "/whep", OnRTP: func(track TrackInfo, p *rtp.Packet, _ time.Time) {
				mu.Lock()
				defer mu.Unlock()
				recorder.Write(track, p)
			}})
			if err != nil {
				t.Fatal(err)
			}
			eventually(t, "over a loop of the clip", func() bool { return v.Stats().Frames > 45 })
			st := v.Stats()
			if err := v.Close(); err != nil {
				t.Error(err)
			}
			if err := recorder.Close(); err != nil {
				t.Fatal(err)
			}
			if st.FirstFrame == 0 || st.Keyframes < 2 || st.Lost > 0 {
				t.Errorf("first frame %v, %d keyframes, %d lost", st.FirstFrame, st.Keyframes, st.Lost)
			}

			if recorder.track.Codec == "video/H264" {
				return // IVF with H264 is for players; Open has Annex B for it
			}
			out, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			frames := out.tracks[0].frames
			if len(frames) != recorder.Frames() || len(frames) < 30 {
				t.Fatalf("%d frames recorded, %d written", len(frames), recorder.Frames())
			}
			original := src.tracks[0].frames
			at := -1
			for i, f := range original {
				if bytes.Equal(f.data, frames[0].data) {
					at = i
					break
				}
			}
			if at < 0 {
				t.Fatal("the first frame recorded is none of the clip's")
			}
			for i, f := range frames {
				if !bytes.Equal(f.data, original[(at+i)%len(original)].data) {
					t.Fatalf("frame %d differs from the clip's", i)
				}
			}
		})
	}
}

func TestServerLeaves(t *testing.T) {
	t.Parallel()
	s := newEchoServer(t, 2)
	p, err := Publish(t.Context(), PublishConfig{URL: s.URL + "/whip", Media: Pattern()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ran := make(chan error, 1)
	go func() { ran <- p.Run(t.Context()) }()
	v := view(t, ViewConfig{URL: s.URL + "/whep"})
	eventually(t, "media", func() bool { return v.Stats().Packets > 0 })

	s.mu.Lock()
	pcs := s.pcs
	s.mu.Unlock()
	for _, pc := range pcs {
		if err := pc.Close(); err != nil {
			t.Error(err)
		}
	}
	select {
	case err := <-ran:
		if !errors.Is(err, ErrConnectionLost) {
			t.Errorf("Run = %v, want ErrConnectionLost", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the publisher did not notice within 10 s")
	}
	select {
	case <-v.Done():
	case <-time.After(10 * time.Second):
		t.Error("the viewer did not notice within 10 s")
	}
	if st := v.Stats(); st.State != "closed" {
		t.Errorf("viewer is %s", st.State)
	}
}

func TestOnceEnds(t *testing.T) {
	t.Parallel()
	s := newEchoServer(t, 1)
	src, err := Open("testdata/vp9.ivf")
	if err != nil {
		t.Fatal(err)
	}
	src.Once = true
	p, err := Publish(t.Context(), PublishConfig{URL: s.URL + "/whip", Media: src})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Run(t.Context()); err != nil {
		t.Errorf("Run = %v", err)
	}
	if st := p.Stats(); st.Frames != 30 {
		t.Errorf("%d frames sent, want 30", st.Frames)
	}
}

func TestAudioOnly(t *testing.T) {
	t.Parallel()
	s := newEchoServer(t, 2)
	publish(t, s.URL+"/whip", Pattern())
	v := view(t, ViewConfig{URL: s.URL + "/whep", NoVideo: true})
	select {
	case <-v.FirstFrame():
	case <-time.After(5 * time.Second):
		t.Fatal("no frame within 5 s")
	}
	st := v.Stats()
	if len(st.Tracks) != 1 || st.Tracks[0].Kind != "audio" || st.FirstFrame == 0 {
		t.Errorf("tracks %+v, first frame %v", st.Tracks, st.FirstFrame)
	}
}

// Closing while media flows, from several goroutines at once, many times over:
// goleak looks at what is left.
func TestCloseInFlight(t *testing.T) {
	s := newEchoServer(t, 2)
	publish(t, s.URL+"/whip", Pattern())
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			v, err := View(t.Context(), ViewConfig{URL: s.URL + "/whep"})
			if err != nil {
				t.Error(err)
				return
			}
			var closers sync.WaitGroup
			for range 3 {
				closers.Go(func() { v.Close() })
			}
			closers.Wait()
		})
	}
	wg.Wait()
}

func TestStatsJSON(t *testing.T) {
	skew := -1500 * time.Microsecond
	s := Stats{
		Elapsed: 2 * time.Second, FirstFrame: 12345 * time.Microsecond, Skew: &skew, State: "connected",
		Tracks: []TrackStats{{Kind: "video", SSRC: 7, Bytes: 1000, Frames: 60, FirstPacket: time.Second, LongestGap: 35 * time.Millisecond}},
	}
	s.total()
	b, err := json.Marshal(s.Since(Stats{Elapsed: time.Second, Bytes: 500, Tracks: []TrackStats{{SSRC: 7, Bytes: 500}}}))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	track := got["tracks"].([]any)[0].(map[string]any)
	for name, c := range map[string]struct{ got, want any }{
		"elapsed_ms":      {got["elapsed_ms"], 2000.0},
		"first_frame_ms":  {got["first_frame_ms"], 12.345},
		"skew_ms":         {got["skew_ms"], -1.5},
		"latency_ms":      {got["latency_ms"], nil},
		"bitrate":         {got["bitrate"], 4000.0},
		"frames":          {got["frames"], 60.0},
		"longest_gap_ms":  {track["longest_gap_ms"], 35.0},
		"track's bitrate": {track["bitrate"], 4000.0},
	} {
		if c.got != c.want {
			t.Errorf("%s = %v, want %v in %s", name, c.got, c.want, b)
		}
	}
}
