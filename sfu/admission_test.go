package sfu

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/sdp/sdptest"
)

// group is whom a client's address counts for.
func group(client string) netip.Prefix {
	return proxied.GroupOf(netip.MustParseAddrPort(client).Addr())
}

// What waits has bounds of its own: of a client, for a stream, and in all.
func TestWaitingIsBounded(t *testing.T) {
	a := newAdmission(always(0))
	code := func(err error) problem.Code {
		if p := problem.Of(err); p != nil {
			return p.Code
		}
		return ""
	}
	var all []*visit
	fill := func(client, stream string, n int) {
		t.Helper()
		for range n {
			v := a.visit(kindWHEP, group(client), stream, 100)
			if err := v.rest(); err != nil {
				t.Fatalf("%s for %s: %v after %d", client, stream, err, len(all))
			}
			all = append(all, v)
		}
	}
	refused := func(client, stream string, size int, says string) {
		t.Helper()
		err := a.visit(kindWHEP, group(client), stream, size).rest()
		if code(err) != problem.TooManyWaiting || problem.Of(err).RetryAfter == 0 || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want too many at %s", err, says)
		}
	}
	fill("192.0.2.1:1", "a", maxWaitingClient-1)
	refused("192.0.2.1:9", "b", waitingUnit, "your address") // it would count twice
	fill("192.0.2.1:9", "b", 1)
	refused("192.0.2.1:9", "b", 1, "your address")
	fill("[2001:db8::1]:1", "a", maxWaitingClient)
	refused("[2001:db8::ffff]:1", "c", 1, "your address") // of the same network
	refused("192.0.2.2:1", "a", waitingUnit, "this stream")
	fill("192.0.2.3:1", "c", maxWaitingClient)
	fill("192.0.2.4:1", "d", maxWaitingClient)
	refused("192.0.2.5:1", "e", 1, "this node")
	if _, waiting := a.counts(); waiting != len(all) {
		t.Errorf("%d wait, want %d", waiting, len(all))
	}
	for _, v := range all {
		v.leave()
		v.leave()
	}
	if _, waiting := a.counts(); waiting != 0 || a.waiting.all != 0 || len(a.waiting.clients)+len(a.waiting.streams) != 0 {
		t.Errorf("left behind: %+v", a.waiting)
	}
}

// Viewers that are being set up keep no publisher out, and get their turns in
// the order in which they came.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ctx := newAdmission(always(0)), t.Context()
		var working []*visit
		for range maxViewSetups {
			v := a.visit(kindWHEP, group("192.0.2.1:1"), "demo", 1)
			if err := v.work(ctx, 0); err != nil {
				t.Fatal(err)
			}
			working = append(working, v)
		}
		if err := a.visit(kindWHIP, group("192.0.2.1:1"), "demo", 1).work(ctx, 0); err != nil {
			t.Errorf("a publisher is kept out: %v", err)
		}
		start := time.Now()
		late := a.visit(kindWHEP, group("192.0.2.2:1"), "demo", 1)
		err := late.work(ctx, setupPatience)
		if p := problem.Of(err); p == nil || p.Code != problem.TooManySetups || p.RetryAfter == 0 || time.Since(start) != setupPatience {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		late.leave()

		var got []int
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				v := a.visit(kindWHEP, group("192.0.2.2:1"), "demo", 1)
				defer v.leave()
				if err := v.work(ctx, time.Minute); err != nil {
					t.Error(err)
				}
				got = append(got, i) // one at a time: there is one turn
			})
			synctest.Wait()
		}
		if err := working[0].rest(); err != nil { // it waits, and so others may work
			t.Error(err)
		}
		wg.Wait()
		if fmt.Sprint(got) != "[0 1 2]" {
			t.Errorf("turns were given to %v", got)
		}
		working[0].leave()

		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := working[0].work(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if err := late.work(gone, time.Minute); err != context.Canceled {
			t.Errorf("a client that has gone: %v", err)
		}
		late.leave()
		for _, v := range working {
			v.leave()
		}
		if _, waiting := a.counts(); waiting != 0 {
			t.Errorf("%d wait", waiting)
		}
	})
}

// However many wait, the network is asked by one, ever more seldom; and all are
// woken when the stream is seen.
func TestVigil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLooker(t, nil)
		l.vigils = map[string]*vigil{}
		start := time.Now()
		var looks []time.Duration
		l.cfg.Live = func(context.Context, string) bool {
			looks = append(looks, time.Since(start))
			return time.Since(start) >= 10*time.Second
		}
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				if err := l.await(ctx, "demo", i%4); err != nil || time.Since(start) > 13*time.Second {
					t.Errorf("woken after %v: %v", time.Since(start), err)
				}
			})
		}
		wg.Wait()
		if n := len(looks); n < 5 || n > 10 {
			t.Errorf("the network was asked %d times, at %v", n, looks)
		}

		// In vain, and when nobody waits any more nobody looks.
		looks = nil
		l.cfg.Live = func(context.Context, string) bool { looks = append(looks, 0); return false }
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.await(ctx, "demo", 0); err == nil {
			t.Error("a stream that is nowhere was seen")
		}
		n := len(looks)
		time.Sleep(time.Minute)
		if len(looks) != n || len(l.vigils) != 0 {
			t.Errorf("it is looked for still: %d times more, %d vigils", len(looks)-n, len(l.vigils))
		}
	})
}

// A node that is full waits as one with room does, and what is left of the wait
// goes on with the client.
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
		resp, _ := call(t, "POST", full.web.URL+"/whep/later?wait=20s", typeSDP, sdptest.Offer(sdptest.Video("0", "recvonly")))
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
		if resp, body := call(t, "POST", to, typeSDP, sdptest.Offer(sdptest.Video("0", "recvonly"))); resp.StatusCode != 201 {
			t.Errorf("there: %s, %s", resp.Status, body)
		}
	case <-time.After(patience):
		t.Error("no answer")
	}
}

// An address has so many sessions, those that are being set up included, and gets
// them back; all of an IPv6 network are one.
func TestSessionsOfOneAddress(t *testing.T) {
	a := newMesh(t).add(ledger.Limits{}, func(c *Config) { c.AddressSessions = always(2) })
	a.publish("demo")
	v := a.watch("demo")
	resp, body := call(t, "POST", a.web.URL+"/whep/demo", typeSDP, sdptest.Offer(sdptest.Video("0", "recvonly")))
	if p := problem.Parse(resp.StatusCode, resp.Header.Get("Content-Type"), []byte(body)); p.Code != problem.TooManyFromAddress || p.Status != 429 || p.RetryAfter == 0 {
		t.Errorf("a third gets %s %s", resp.Status, body)
	}
	if detail := a.lastDetail(event.Refused); !strings.Contains(detail, "2 sessions") {
		t.Errorf("the refusal is told as %q", detail)
	}
	if err := v.Close(); err != nil {
		t.Error(err)
	}
	// One that comes to nothing gives it back as well.
	for range 3 {
		if resp, body := call(t, "POST", a.web.URL+"/whep/none", typeSDP, sdptest.Offer(sdptest.Video("0", "recvonly"))); resp.StatusCode != 409 {
			t.Errorf("a stream that is not live: %s %s", resp.Status, body)
		}
	}
	flows(t, a.watch("demo"), 5)

	most := 1
	in := newAdmission(func() int { return most })
	one, err := in.hold(group("[2001:db8::1]:1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.hold(group("[2001:db8::ffff:0:1]:1")); err == nil {
		t.Error("another address of its network is another client")
	}
	one()
	one() // twice is once
	for range 2 {
		if _, err := in.hold(netip.Prefix{}); err != nil {
			t.Errorf("one of unknown address: %v", err)
		}
	}
	if _, err := in.hold(group("[2001:db8::ffff:0:1]:1")); err != nil || len(in.each) != 1 {
		t.Errorf("after it has gone: %v, %v", err, in.each)
	}
	// A bound that is taken away and set again counts those that came meanwhile.
	most = 0
	if _, err := in.hold(group("[2001:db8::1]:1")); err != nil {
		t.Error(err)
	}
	most = 2
	if _, err := in.hold(group("[2001:db8::1]:1")); err == nil || !strings.Contains(err.Error(), "2 sessions") {
		t.Errorf("a third where two may be: %v", err)
	}
}
