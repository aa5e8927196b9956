package admission

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/sfu/problem"
	"weir/sfu/proxied"
)

// group is the address group that a client counts for.
func group(client string) netip.Prefix {
	return proxied.GroupOf(netip.MustParseAddrPort(client).Addr())
}

// Waiting requests are bounded: those of a client, for a stream, and in all.
func TestWaitingIsBounded(t *testing.T) {
	a := New(func() int { return 0 })
	code := func(err error) problem.Code {
		if p := problem.Of(err); p != nil {
			return p.Code
		}
		return ""
	}
	var all []*Visit
	fill := func(client, stream string, n int) {
		t.Helper()
		for range n {
			v := a.Visit(false, group(client), stream, 100)
			if err := v.Rest(); err != nil {
				t.Fatalf("%s for %s: %v after %d", client, stream, err, len(all))
			}
			all = append(all, v)
		}
	}
	refused := func(client, stream string, size int, says string) {
		t.Helper()
		err := a.Visit(false, group(client), stream, size).Rest()
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
	if _, waiting := a.Counts(); waiting != len(all) {
		t.Errorf("%d wait, want %d", waiting, len(all))
	}
	for _, v := range all {
		v.Leave()
		v.Leave()
	}
	if _, waiting := a.Counts(); waiting != 0 || a.waiting.all != 0 || len(a.waiting.clients)+len(a.waiting.streams) != 0 {
		t.Errorf("left behind: %+v", a.waiting)
	}
}

// Viewers that are being set up do not block publishers, and get setup slots in
// the order in which they came.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, ctx := New(func() int { return 0 }), t.Context()
		var working []*Visit
		for range maxViewSetups {
			v := a.Visit(false, group("192.0.2.1:1"), "demo", 1)
			if err := v.Work(ctx, 0); err != nil {
				t.Fatal(err)
			}
			working = append(working, v)
		}
		if err := a.Visit(true, group("192.0.2.1:1"), "demo", 1).Work(ctx, 0); err != nil {
			t.Errorf("a publisher is kept out: %v", err)
		}
		start := time.Now()
		late := a.Visit(false, group("192.0.2.2:1"), "demo", 1)
		err := late.Work(ctx, Patience)
		if p := problem.Of(err); p == nil || p.Code != problem.TooManySetups || p.RetryAfter == 0 || time.Since(start) != Patience {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		late.Leave()

		var got []int
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				v := a.Visit(false, group("192.0.2.2:1"), "demo", 1)
				defer v.Leave()
				if err := v.Work(ctx, time.Minute); err != nil {
					t.Error(err)
				}
				got = append(got, i) // one at a time: there is one slot
			})
			synctest.Wait()
		}
		if err := working[0].Rest(); err != nil { // while it waits, others may be set up
			t.Error(err)
		}
		wg.Wait()
		if fmt.Sprint(got) != "[0 1 2]" {
			t.Errorf("turns were given to %v", got)
		}
		working[0].Leave()

		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := working[0].Work(ctx, 0); err != nil {
			t.Fatal(err)
		}
		if err := late.Work(gone, time.Minute); err != context.Canceled {
			t.Errorf("a client that has gone: %v", err)
		}
		late.Leave()
		for _, v := range working {
			v.Leave()
		}
		if _, waiting := a.Counts(); waiting != 0 {
			t.Errorf("%d wait", waiting)
		}
	})
}

// The sessions of a client's address are bounded, and one that ends makes room.
func TestSessionsOfAnAddress(t *testing.T) {
	most := 1
	in := New(func() int { return most })
	one, err := in.Hold(group("[2001:db8::1]:1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Hold(group("[2001:db8::ffff:0:1]:1")); err == nil {
		t.Error("another address of its network is another client")
	}
	one()
	one() // a second call has no effect
	for range 2 {
		if _, err := in.Hold(netip.Prefix{}); err != nil {
			t.Errorf("one of unknown address: %v", err)
		}
	}
	if _, err := in.Hold(group("[2001:db8::ffff:0:1]:1")); err != nil || len(in.each) != 1 {
		t.Errorf("after it has gone: %v, %v", err, in.each)
	}
	// A limit that is removed and set again counts the sessions begun
	// meanwhile.
	most = 0
	if _, err := in.Hold(group("[2001:db8::1]:1")); err != nil {
		t.Error(err)
	}
	most = 2
	if _, err := in.Hold(group("[2001:db8::1]:1")); err == nil || !strings.Contains(err.Error(), "2 sessions") {
		t.Errorf("a third where two may be: %v", err)
	}
}
