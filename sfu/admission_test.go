package sfu

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/sfu/problem"
	"weir/sfu/sdp/sdptest"
)

// A full node waits like one with room, and the rest of the wait follows the
// redirected client.
func TestFullNodeWaits(t *testing.T) {
	m := newMesh(t)
	b := m.add(ledger.Limits{}, nil)
	var full *meshNode
	full = m.add(ledger.Limits{Sessions: 1}, func(c *Config) {
		place := c.Place
		c.Place = func(ctx context.Context, need capacity.Need, exclude []peer.ID) (Helper, error) {
			if need.Purpose == capacity.View && !full.live(ctx, need.Stream) {
				return Helper{}, ErrNotLive
			}
			return place(ctx, need, exclude)
		}
	})
	full.publish("own")
	answered := make(chan *http.Response, 1)
	go func() {
		resp, _ := call(t, "POST", full.web.URL+"/whep/later?wait=20s", "application/sdp", sdptest.Offer(sdptest.Video("0", "recvonly")))
		answered <- resp
	}()
	eventually(t, "it waits", func() bool { return full.Counts().Waiting == 1 })
	if n := full.Counts().Setups; n != 0 {
		t.Errorf("%d are being set up meanwhile", n)
	}
	b.publish("later")
	select {
	case resp := <-answered:
		to := resp.Header.Get("Location")
		_, wait, _ := strings.Cut(to, "&wait=")
		left, err := time.ParseDuration(wait)
		if resp.StatusCode != 307 || err != nil || left <= 0 || left >= 20*time.Second {
			t.Errorf("%s to %q, with a wait of %v", resp.Status, to, left)
		}
		if resp, body := call(t, "POST", to, "application/sdp", sdptest.Offer(sdptest.Video("0", "recvonly"))); resp.StatusCode != 201 {
			t.Errorf("there: %s, %s", resp.Status, body)
		}
	case <-time.After(patience):
		t.Error("no answer")
	}
}

// The sessions of an address are bounded, including those being set up, and are
// given back; an IPv6 network counts as one address.
func TestSessionsOfOneAddress(t *testing.T) {
	a := newMesh(t).add(ledger.Limits{}, func(c *Config) { c.AddressSessions = always(2) })
	a.publish("demo")
	v := a.watch("demo")
	resp, body := call(t, "POST", a.web.URL+"/whep/demo", "application/sdp", sdptest.Offer(sdptest.Video("0", "recvonly")))
	if p := problem.Parse(resp.StatusCode, resp.Header.Get("Content-Type"), []byte(body)); p.Code != problem.TooManyFromAddress || p.Status != 429 || p.RetryAfter == 0 {
		t.Errorf("a third gets %s %s", resp.Status, body)
	}
	if detail := a.lastDetail(event.Refused); !strings.Contains(detail, "2 sessions") {
		t.Errorf("the refusal is told as %q", detail)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	// A failed setup gives its session back, too.
	for range 3 {
		if resp, body := call(t, "POST", a.web.URL+"/whep/none", "application/sdp", sdptest.Offer(sdptest.Video("0", "recvonly"))); resp.StatusCode != 409 {
			t.Errorf("a stream that is not live: %s %s", resp.Status, body)
		}
	}
	flows(t, a.watch("demo"), 5)
}
