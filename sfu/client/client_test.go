package client

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"
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
