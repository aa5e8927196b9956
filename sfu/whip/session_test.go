package whip

import (
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weir/capacity/event"
	"weir/sfu/sdp/sdptest"
)

// Sessions end for each reason and at the right time, and leave nothing behind.
func TestSessionsEnd(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(f *fake, viewer *fakeTransport) // after it, the session ends by itself
		word  string
		after time.Duration
	}{
		{"never connected", func(*fake, *fakeTransport) {}, "never_connected", connectTimeout},
		{"no check comes any more", func(_ *fake, v *fakeTransport) { close(v.connected) }, "no_consent", consentTimeout},
		{"the connection ends", func(_ *fake, v *fakeTransport) { v.ended <- "the client closed the connection" }, "closed", 0},
		{"the stream ends", func(f *fake, _ *fakeTransport) { f.transports[0].ended <- "the client fell silent" }, "stream_ended", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t, nil)
				if got := f.post("/whip/demo", sdptest.Offer(sdptest.Audio("0", "sendonly"))); got.StatusCode != http.StatusCreated {
					t.Fatal(got.Status)
				}
				publisher := f.transports[0]
				close(publisher.connected)
				publisher.checked = time.Now().Add(time.Hour)
				if got := f.post("/whep/demo", sdptest.Offer(sdptest.Audio("0", "recvonly"))); got.StatusCode != http.StatusCreated {
					t.Fatal(got.Status)
				}
				viewer, start := f.transports[1], time.Now()
				c.do(f, viewer)
				for f.Counts().Viewers > 0 {
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if took := time.Since(start); took < c.after || took > c.after+consentCheck+2*time.Second {
					t.Errorf("it ended after %v, want %v", took, c.after)
				}
				if !viewer.stopped || !viewer.closed {
					t.Errorf("stopped %t, closed %t", viewer.stopped, viewer.closed)
				}
				// The publisher's event, if there is one, may come before or
				// after.
				closed := slices.DeleteFunc(f.saw(event.SessionClosed), func(e event.Event) bool { return e.Role != "viewer" })
				if len(closed) != 1 || closed[0].Reason != c.word {
					t.Errorf("the events say %v, want %s of one viewer", closed, c.word)
				}
			})
		})
	}
}

// A publisher that sends keeps its stream's name; one that has fallen silent
// gives way, and its viewers stay if the tracks are alike.
func TestPublisherGivesWay(t *testing.T) {
	offer := sdptest.Offer(sdptest.Audio("0", "sendonly"))
	for _, alike := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(t, nil)
			f.post("/whip/demo", offer)
			first, _ := f.Here("demo")
			if got := f.post("/whip/demo", offer); got.StatusCode != http.StatusConflict {
				t.Errorf("beside one that sends: %s", got.Status)
			}
			f.transports[0].quiet, f.unlike = giveWayAfter, !alike
			if got := f.post("/whip/demo", offer); got.StatusCode != http.StatusCreated {
				t.Fatalf("in place of one that is silent: %s", got.Status)
			}
			synctest.Wait()
			if now, _ := f.Here("demo"); (now == first) != alike || first.Ended() == alike {
				t.Errorf("with tracks alike, %t: its stream goes on %t, has ended %t", alike, now == first, first.Ended())
			}
			if n := f.Counts().Publishers; n != 1 {
				t.Errorf("%d publishers", n)
			}
			if e := f.saw(event.PublisherReplaced); len(e) != 1 {
				t.Errorf("told %d times", len(e))
			}
		})
	}
}

// A viewer that packets are skipped of is told of once, and its status counts
// them.
func TestSkippedPacketsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, nil)
		for _, path := range []string{"/whip/demo", "/whep/demo"} {
			direction := map[string]string{"/whip/demo": "sendonly", "/whep/demo": "recvonly"}[path]
			if got := f.post(path, sdptest.Offer(sdptest.Audio("0", direction))); got.StatusCode != http.StatusCreated {
				t.Fatal(got.Status)
			}
		}
		for _, transport := range f.transports {
			transport.checked = time.Now().Add(time.Hour)
			close(transport.connected)
		}
		time.Sleep(2 * mediaCheck)
		synctest.Wait()
		if got := f.saw(event.MediaDropped); len(got) != 0 {
			t.Errorf("%v without a reason", got)
		}
		f.transports[1].skipped.Store(14)
		time.Sleep(3 * mediaCheck)
		synctest.Wait()
		got := f.saw(event.MediaDropped)
		if len(got) != 1 || got[0].Reason != "late" || got[0].Role != "viewer" {
			t.Errorf("the events say %v, want one of the viewer", got)
		}
		skipped := int64(0)
		for _, s := range f.Sessions() {
			skipped += s.Skipped
		}
		if skipped != 14 {
			t.Errorf("the status counts %d, want 14", skipped)
		}
	})
}

// A viewer's address chooses its layer, which its status names.
func TestLayerOfTheAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t, nil)
		f.post("/whip/demo", sdptest.Offer(sdptest.Video("0", "sendonly")))
		if got := f.post("/whep/demo?layer=l&temporal=1", sdptest.Offer(sdptest.Video("0", "recvonly"))); got.StatusCode != http.StatusCreated {
			t.Fatal(got.Status)
		}
		c := f.transports[1].choice
		if c.RID != "l" || c.Spatial != nil || c.Temporal == nil || *c.Temporal != 1 {
			t.Errorf("chosen is %+v", c)
		}
		if q := layerQuery(c); q != "&layer=l&temporal=1" {
			t.Errorf("a redirect says %q", q)
		}
		for _, s := range f.Sessions() { // in any order: both began at one time
			if chosen := s.Layer != nil && s.Layer.RID == "l"; chosen != (s.Kind == WHEP) {
				t.Errorf("%s session has the layer %+v", s.Kind, s.Layer)
			}
		}
	})
}
