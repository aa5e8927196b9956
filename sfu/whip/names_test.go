package whip

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"weir/sfu/problem"
	"weir/sfu/sdp/sdptest"
)

// Of two nodes that publish one name one keeps it, and both agree on which.
func TestKeepsName(t *testing.T) {
	for _, c := range []struct {
		name  string
		a, b  time.Duration // for how long; 0: a release that does not say
		same  bool
		keeps string
	}{
		{"whoever came first", time.Hour, time.Minute, false, "a"},
		{"though its ID is larger", time.Minute, time.Hour, false, "b"},
		{"of one right, whoever came last", time.Minute, time.Hour, true, "a"},
		{"or b", time.Hour, time.Minute, true, "b"},
		{"at the same time, the smaller ID", time.Second, 2 * time.Second, false, "a"},
		{"and of one right", time.Second, 2 * time.Second, true, "a"},
	} {
		mine := keepsName(Rival{Node: "a", Held: c.a, Same: c.same}, "b", c.b)
		theirs := keepsName(Rival{Node: "b", Held: c.b, Same: c.same}, "a", c.a)
		if mine == theirs || mine != (c.keeps == "a") {
			t.Errorf("%s: a keeps it %t, b keeps it %t", c.name, mine, theirs)
		}
	}
	if keepsName(Rival{Node: "b"}, "a", time.Hour) || !keepsName(Rival{Node: "a"}, "b", time.Hour) {
		t.Error("of a node that does not say for how long, the smaller ID keeps it")
	}
}

// A publisher that takes over from one here gets its claim, by the right and from
// the time of its own.
func TestClaimPassesToWhoTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		claimed, passed := 0, 0
		f := newFake(t, func(c *Config) {
			c.Claim = func(context.Context, string, []byte) (func(), error) {
				claimed++
				time.Sleep(2 * settleSlack)
				return func() {}, nil
			}
			c.Pass = func(name string, _ []byte) {
				if name == "demo" {
					passed++
				}
			}
		})
		for takenOver := range 3 {
			if resp := f.post("/whip/demo", sdptest.Offer(sdptest.Audio("0", "sendonly"))); resp.StatusCode != 201 {
				t.Fatalf("publisher %d: %s", takenOver, resp.Status)
			}
			if claimed != 1 || passed != takenOver {
				t.Errorf("taken over %d times: claimed %d times and passed %d times", takenOver, claimed, passed)
			}
			if held := time.Since(f.names.publishers["demo"].began); held != 0 {
				t.Errorf("taken over %d times: held for %v", takenOver, held)
			}
			f.transports[takenOver].quiet = giveWayAfter
			time.Sleep(5 * time.Second)
		}
	})
}

// A name is claimed once the publisher's offer is answered, since that may end a
// publisher elsewhere; one that does not get it leaves nothing behind.
func TestClaimComesLast(t *testing.T) {
	claimed := 0
	f := newFake(t, func(c *Config) {
		c.Claim = func(context.Context, string, []byte) (func(), error) {
			claimed++
			return nil, &problem.TakenError{Node: "other"}
		}
	})
	f.refuse = problem.New(problem.BadBody, "no codec of it is forwarded")
	offer := sdptest.Offer(sdptest.Audio("0", "sendonly"))
	if resp := f.post("/whip/demo", offer); resp.StatusCode != 400 || claimed != 0 {
		t.Errorf("an offer that is refused: %s, and %d claims", resp.Status, claimed)
	}
	f.refuse = nil
	if resp := f.post("/whip/demo", offer); resp.StatusCode != 409 || claimed != 1 {
		t.Errorf("a name that is taken: %s, and %d claims", resp.Status, claimed)
	}
	if st, _ := f.Here("demo"); st != nil || len(f.transports) != 1 || !f.transports[0].closed || len(f.all()) != 0 {
		t.Errorf("it leaves the stream %v and %d transports, closed %t, and %d sessions", st, len(f.transports), f.transports[0].closed, len(f.all()))
	}
	if got := f.ledger.Totals(time.Now()); got.Publishers != 0 {
		t.Errorf("it leaves %d publishers in the ledger", got.Publishers)
	}
}

// A stream waits for a publisher that has vanished, and not for one that has
// ended it or that never connected.
func TestWhoMayComeBack(t *testing.T) {
	for _, c := range []struct {
		name    string
		connect bool
		do      func(f *fake)
		waits   bool
	}{
		{"it falls silent", true, func(f *fake) { f.transports[0].ended <- "the client fell silent" }, true},
		{"it closes the connection", true, func(f *fake) { f.transports[0].ended <- "the client closed the connection" }, true},
		{"its name was taken", true, func(f *fake) { f.all()[0].end("its name was taken at node x") }, true},
		{"it gives way to another node", true, func(f *fake) {
			f.transports[0].quiet = giveWayAfter
			if f.Yield("demo", false) != true {
				panic("it does not")
			}
		}, true},
		{"it never connected", false, func(*fake) { time.Sleep(connectTimeout) }, false},
		{"the operator ends it", true, func(f *fake) { f.all()[0].end("ended by the operator") }, false},
		{"it deletes its session", true, func(f *fake) { f.all()[0].end("deleted by the client") }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake(t, nil)
				f.post("/whip/demo", sdptest.Offer(sdptest.Audio("0", "sendonly")))
				if c.connect {
					close(f.transports[0].connected)
				}
				if f.Yield("demo", false) {
					t.Error("one that sends gives way to another right")
				}
				time.Sleep(time.Second)
				f.transports[0].quiet = time.Second
				last := time.Now().Add(-time.Second)
				c.do(f)
				synctest.Wait()
				if st, _ := f.Here("demo"); st != nil || c.waits != (len(f.vanished) == 1) {
					t.Fatalf("it is still here %t, and waits %v", st != nil, f.vanished)
				}
				if c.waits && f.vanished[0].After(last) {
					t.Errorf("its last sign of life was at %v, not %v", f.vanished[0], last)
				}
			})
		})
	}
}
