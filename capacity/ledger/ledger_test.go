package ledger

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/signed"
)

// maxNeed is the largest valid need, in bit/s and packets/s.
const (
	maxNeed = 1 << 40
	ms      = time.Millisecond
)

// reason returns a refusal's reason, or "" for nil.
func reason(tb testing.TB, err error) string {
	tb.Helper()
	if err == nil {
		return ""
	}
	var r *capacity.Refusal
	if !errors.As(err, &r) {
		tb.Fatalf("%v is no refusal", err)
	}
	return r.Reason
}

func TestLedgerAdmits(t *testing.T) {
	const mbit = 1_000_000

	limits := Limits{Sessions: 4, Uplink: 100 * mbit, Packets: 10_000, Streams: 3}
	for _, tt := range []struct {
		name   string
		limits Limits
		before func(*Ledger)
		need   capacity.Need
		want   string // the reason for a refusal
	}{
		{"a viewer, with nothing in use", limits, nil, capacity.Need{Stream: "a", Uplink: 5 * mbit, Packets: 600}, ""},
		{"a need that fits exactly below the last tenth", limits, nil, capacity.Need{Uplink: 90 * mbit, Packets: 9_000}, ""},
		{"one bit too many", limits, nil, capacity.Need{Uplink: 90*mbit + 1}, "uplink"},
		{"one packet too many", limits, nil, capacity.Need{Packets: 9_001}, "packets"},
		{"a publisher is held to the same", limits, nil, capacity.Need{Purpose: capacity.Publish, Uplink: 90*mbit + 1}, "uplink"},
		{"the last tenth is for cascades", limits, nil, capacity.Need{Purpose: capacity.Cascade, Uplink: 100 * mbit, Packets: 10_000}, ""},
		{"and ends at the limit", limits, nil, capacity.Need{Purpose: capacity.Cascade, Uplink: 100*mbit + 1}, "uplink"},
		{"in packets too", limits, nil, capacity.Need{Purpose: capacity.Cascade, Packets: 10_001}, "packets"},
		{"what is measured counts", limits, observe(Load{Uplink: 89 * mbit}), capacity.Need{Uplink: 2 * mbit}, "uplink"},
		{"measured packets count", limits, observe(Load{Packets: 8_500}), capacity.Need{Packets: 600}, "packets"},
		{"what is promised counts beside it", limits, func(l *Ledger) {
			l.Observe(capacitytest.Epoch, Load{Uplink: 50 * mbit})
			l.Admit(capacitytest.Epoch, "young", capacity.Need{Uplink: 39 * mbit})
		}, capacity.Need{Uplink: 2 * mbit}, "uplink"},
		{"until the meter has seen it", limits, func(l *Ledger) {
			l.Admit(capacitytest.Epoch.Add(-SettleTime), "settled", capacity.Need{Uplink: 39 * mbit})
			l.Observe(capacitytest.Epoch, Load{Uplink: 50 * mbit})
		}, capacity.Need{Uplink: 2 * mbit}, ""},
		{"the fourth of four sessions", limits, fill(3), capacity.Need{}, ""},
		{"a fifth of four sessions", limits, fill(4), capacity.Need{}, "sessions"},
		{"a cascade is no session", limits, fill(4), capacity.Need{Purpose: capacity.Cascade}, ""},
		{"and takes none", limits, func(l *Ledger) {
			for i := range 9 {
				l.Admit(capacitytest.Epoch, fmt.Sprint(i), capacity.Need{Purpose: capacity.Cascade})
			}
		}, capacity.Need{}, ""},
		{"a fourth of three streams", limits, streams("a", "b", "c"), capacity.Need{Stream: "d"}, "streams"},
		{"one of the three again", limits, streams("a", "b", "c"), capacity.Need{Stream: "c"}, ""},
		{"no stream in particular", limits, streams("a", "b", "c"), capacity.Need{}, ""},
		{"a hot node", limits, observe(Load{CPU: 0.73, CPULimit: 0.8}), capacity.Need{}, "cpu"},
		{"a node that was hot and has not cooled", limits, observe(Load{CPU: 0.73, CPULimit: 0.8}, Load{CPU: 0.6, CPULimit: 0.8}), capacity.Need{}, "cpu"},
		{"a node that has cooled", limits, observe(Load{CPU: 0.73, CPULimit: 0.8}, Load{CPU: 0.5, CPULimit: 0.8}), capacity.Need{}, ""},
		{"a hot node still hands on", limits, observe(Load{CPU: 0.79, CPULimit: 0.8}), capacity.Need{Purpose: capacity.Cascade}, ""},
		{"up to its limit", limits, observe(Load{CPU: 0.8, CPULimit: 0.8}), capacity.Need{Purpose: capacity.Cascade}, "cpu"},
		{"a node without sessions is never full for CPU", limits, func(l *Ledger) { l.Observe(capacitytest.Epoch, Load{CPU: 1, CPULimit: 0.8}) }, capacity.Need{}, ""},
		{"nor for a cascade", limits, func(l *Ledger) { l.Observe(capacitytest.Epoch, Load{CPU: 1, CPULimit: 0.8}) }, capacity.Need{Purpose: capacity.Cascade}, ""},
		{"CPU without a limit is not counted", limits, observe(Load{CPU: 1}), capacity.Need{}, ""},
		{"a late node", limits, observe(Load{Delay: 50 * ms, DelayLimit: 50 * ms}), capacity.Need{}, "delay"},
		{"one that is nearly late", limits, observe(Load{Delay: 49 * ms, DelayLimit: 50 * ms}), capacity.Need{}, ""},
		{"one that carries nearly as much as when it was late", limits, observe(Load{Packets: 1000, Delay: 50 * ms, DelayLimit: 50 * ms}, Load{Packets: 800, DelayLimit: 50 * ms}), capacity.Need{Packets: 50}, "delay"},
		{"or would, by what it has promised", limits, func(l *Ledger) {
			observe(Load{Packets: 1000, Delay: 50 * ms, DelayLimit: 50 * ms}, Load{Packets: 700, DelayLimit: 50 * ms})(l)
			l.Admit(capacitytest.Epoch, "more", capacity.Need{Packets: 100})
		}, capacity.Need{Packets: 50}, "delay"},
		{"one that carries much less", limits, observe(Load{Packets: 1000, Delay: 50 * ms, DelayLimit: 50 * ms}, Load{Packets: 800, DelayLimit: 50 * ms}), capacity.Need{Packets: 49}, ""},
		{"a late node still hands on", limits, observe(Load{Delay: time.Second, DelayLimit: 50 * ms}), capacity.Need{Purpose: capacity.Cascade}, ""},
		{"a node without sessions is never too late", limits, func(l *Ledger) { l.Observe(capacitytest.Epoch, Load{Delay: time.Second, DelayLimit: 50 * ms}) }, capacity.Need{}, ""},
		{"a delay without a limit is not counted", limits, observe(Load{Delay: time.Second}), capacity.Need{}, ""},
		{"a draining node", limits, drain, capacity.Need{}, "draining"},
		{"takes no publisher", limits, drain, capacity.Need{Purpose: capacity.Publish}, "draining"},
		{"but hands on", limits, drain, capacity.Need{Purpose: capacity.Cascade}, ""},
		{"anything, without limits", Limits{}, func(l *Ledger) {
			fill(1000)(l)
			l.Observe(capacitytest.Epoch, Load{Uplink: math.MaxInt64, Packets: math.MaxInt64})
		}, capacity.Need{Stream: "a", Uplink: maxNeed, Packets: maxNeed}, ""},
		{"a negative uplink would make room", limits, nil, capacity.Need{Uplink: -1}, "malformed"},
		{"as would negative packets", limits, nil, capacity.Need{Packets: -1}, "malformed"},
		{"no node has that much", Limits{}, nil, capacity.Need{Uplink: maxNeed + 1}, "malformed"},
		{"a purpose no one knows", limits, nil, capacity.Need{Purpose: 3}, "malformed"},
		{"a stream that cannot be", limits, nil, capacity.Need{Stream: ".."}, "malformed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Both ways of admission have the same limits.
			for _, way := range []func(*Ledger) error{
				func(l *Ledger) error { return l.Admit(capacitytest.Epoch, "asked", tt.need) },
				func(l *Ledger) error {
					_, err := l.Reserve(capacitytest.Epoch, capacity.Request{ID: "asked", From: capacitytest.ID(t, "from"), Need: tt.need})
					return err
				},
			} {
				l := New(capacitytest.ID(t, "self"), tt.limits)
				if tt.before != nil {
					tt.before(l)
				}
				if got := reason(t, way(l)); got != tt.want {
					t.Errorf("refused for %q, want %q", got, tt.want)
				}
			}
		})
	}
}

// observe passes the measured loads to a ledger with one client.
func observe(loads ...Load) func(*Ledger) {
	return func(l *Ledger) {
		l.Admit(capacitytest.Epoch, "here", capacity.Need{})
		for _, load := range loads {
			l.Observe(capacitytest.Epoch, load)
		}
	}
}

func fill(n int) func(*Ledger) {
	return func(l *Ledger) {
		for i := range n {
			if err := l.Admit(capacitytest.Epoch, fmt.Sprint("viewer ", i), capacity.Need{}); err != nil {
				panic(err)
			}
		}
	}
}

func streams(names ...string) func(*Ledger) {
	return func(l *Ledger) {
		for _, name := range names {
			if err := l.Admit(capacitytest.Epoch, name, capacity.Need{Stream: name}); err != nil {
				panic(err)
			}
		}
	}
}

func drain(l *Ledger) { l.SetDraining(true) }

func TestLeases(t *testing.T) {
	self, from, other := capacitytest.ID(t, "self"), capacitytest.ID(t, "from"), capacitytest.ID(t, "other")
	req := capacity.Request{ID: capacitytest.RequestID, From: from, Need: capacity.Need{Stream: "demo", Uplink: 100, Packets: 10}}
	want := capacity.Lease{ID: capacitytest.RequestID, Target: self, From: from, Need: req.Need, Expires: capacitytest.Epoch.Add(capacity.LeaseTime)}
	end := want.Expires
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, l *Ledger) // a lease of one session has been given
		held int                           // sessions then
	}{
		{"a lease counts as a session", func(t *testing.T, l *Ledger) {}, 1},
		{"asked for again, it is the same", func(t *testing.T, l *Ledger) {
			if got, err := l.Reserve(capacitytest.Epoch.Add(time.Second), req); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}, 1},
		{"even if there is no room any more", func(t *testing.T, l *Ledger) {
			l.SetDraining(true)
			l.Observe(capacitytest.Epoch, Load{Uplink: 1 << 40})
			if got, err := l.Reserve(capacitytest.Epoch, req); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}, 1},
		{"but not for another need", func(t *testing.T, l *Ledger) {
			more := req
			more.Need.Uplink++
			if _, err := l.Reserve(capacitytest.Epoch, more); reason(t, err) != "malformed" {
				t.Errorf("got %v", err)
			}
		}, 1},
		{"another's request of the same ID is another", func(t *testing.T, l *Ledger) {
			theirs := req
			theirs.From = other
			if _, err := l.Reserve(capacitytest.Epoch, theirs); reason(t, err) != "sessions" {
				t.Errorf("got %v", err)
			}
		}, 1},
		{"claimed, it stays a session", func(t *testing.T, l *Ledger) {
			if got, err := l.Claim(capacitytest.Epoch.Add(time.Second), from, capacitytest.RequestID); err != nil || got != want {
				t.Errorf("got %+v, %v, want %+v", got, err, want)
			}
		}, 1},
		{"it can be claimed once", func(t *testing.T, l *Ledger) {
			l.Claim(capacitytest.Epoch, from, capacitytest.RequestID)
			if _, err := l.Claim(capacitytest.Epoch, from, capacitytest.RequestID); !errors.Is(err, ErrNoLease) {
				t.Errorf("got %v", err)
			}
		}, 1},
		{"not even after the session has ended", func(t *testing.T, l *Ledger) {
			l.Claim(capacitytest.Epoch, from, capacitytest.RequestID)
			l.End(capacitytest.RequestID)
			if _, err := l.Claim(capacitytest.Epoch, from, capacitytest.RequestID); !errors.Is(err, ErrNoLease) {
				t.Errorf("got %v", err)
			}
		}, 0},
		{"claimed, it is not given again", func(t *testing.T, l *Ledger) {
			l.Claim(capacitytest.Epoch, from, capacitytest.RequestID)
			if _, err := l.Reserve(capacitytest.Epoch, req); reason(t, err) != "claimed" {
				t.Errorf("got %v", err)
			}
		}, 1},
		{"someone else cannot claim it", func(t *testing.T, l *Ledger) {
			if _, err := l.Claim(capacitytest.Epoch, other, capacitytest.RequestID); !errors.Is(err, ErrNoLease) {
				t.Errorf("got %v", err)
			}
		}, 1},
		{"it can be claimed until it expires", func(t *testing.T, l *Ledger) {
			if _, err := l.Claim(end.Add(-1), from, capacitytest.RequestID); err != nil {
				t.Error(err)
			}
		}, 1},
		{"and not when it does", func(t *testing.T, l *Ledger) {
			if _, err := l.Claim(end, from, capacitytest.RequestID); !errors.Is(err, ErrNoLease) {
				t.Errorf("got %v", err)
			}
		}, 0},
		{"even if the clock is then set back", func(t *testing.T, l *Ledger) {
			l.Observe(end, Load{})
			if _, err := l.Claim(capacitytest.Epoch, from, capacitytest.RequestID); !errors.Is(err, ErrNoLease) {
				t.Errorf("got %v", err)
			}
		}, 0},
		{"claimed, it does not expire", func(t *testing.T, l *Ledger) {
			l.Claim(capacitytest.Epoch, from, capacitytest.RequestID)
			l.Observe(capacitytest.Epoch.AddDate(1, 0, 0), Load{})
		}, 1},
		{"claimed, it cannot be released", func(t *testing.T, l *Ledger) {
			l.Claim(capacitytest.Epoch, from, capacitytest.RequestID)
			l.Release(from, capacitytest.RequestID)
		}, 1},
		{"not claimed, it cannot be ended", func(t *testing.T, l *Ledger) { l.End(capacitytest.RequestID) }, 1},
		{"released, it frees its session", func(t *testing.T, l *Ledger) {
			l.Release(from, capacitytest.RequestID)
			l.Release(from, capacitytest.RequestID)
		}, 0},
		{"and can be given anew", func(t *testing.T, l *Ledger) {
			l.Release(from, capacitytest.RequestID)
			got, err := l.Reserve(capacitytest.Epoch.Add(time.Second), req)
			if err != nil || got.Expires != end.Add(time.Second) {
				t.Errorf("got %+v, %v", got, err)
			}
		}, 1},
		{"someone else cannot release it", func(t *testing.T, l *Ledger) { l.Release(other, capacitytest.RequestID) }, 1},
		{"expired, it frees its session", func(t *testing.T, l *Ledger) { l.Observe(end, Load{}) }, 0},
		{"ended, so does its session", func(t *testing.T, l *Ledger) {
			l.Claim(capacitytest.Epoch, from, capacitytest.RequestID)
			l.End(capacitytest.RequestID)
			l.End(capacitytest.RequestID)
		}, 0},
		{"who came by itself cannot take its place", func(t *testing.T, l *Ledger) {
			if err := l.Admit(capacitytest.Epoch, capacitytest.RequestID, capacity.Need{}); reason(t, err) != "sessions" {
				t.Errorf("got %v", err)
			}
		}, 1},
		{"to admit a session twice changes nothing", func(t *testing.T, l *Ledger) {
			l.Claim(capacitytest.Epoch, from, capacitytest.RequestID)
			if err := l.Admit(capacitytest.Epoch, capacitytest.RequestID, capacity.Need{}); err != nil {
				t.Error(err)
			}
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := New(self, Limits{Sessions: 1, Uplink: 1000, Packets: 100})
			if got, err := l.Reserve(capacitytest.Epoch, req); err != nil || got != want {
				t.Fatalf("Reserve: %+v, %v, want %+v", got, err, want)
			}
			tt.run(t, l)
			if got := l.Totals(capacitytest.Epoch).Sessions; got != tt.held {
				t.Errorf("%d sessions, want %d", got, tt.held)
			}
		})
	}
}

// Malformed requests are refused before they are stored.
func TestReserveRefusesBadRequests(t *testing.T) {
	l := New(capacitytest.ID(t, "self"), Limits{})
	from := capacitytest.ID(t, "from")
	for _, tt := range []struct {
		name string
		req  capacity.Request
	}{
		{"without an ID", capacity.Request{From: from}},
		{"with an ID too long", capacity.Request{ID: string(make([]byte, 64+1)), From: from}},
		{"with an ID that breaks lines", capacity.Request{ID: "a\nb", From: from}},
		{"from nobody", capacity.Request{ID: "a"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := l.Reserve(capacitytest.Epoch, tt.req)
			if reason(t, err) != "malformed" {
				t.Errorf("got %v", err)
			}
			var r *capacity.Refusal
			if errors.As(err, &r) && r.RetryAfter != 0 {
				t.Errorf("told to try again in %v", r.RetryAfter)
			}
		})
	}
}

// One node cannot take all leases, and all nodes together cannot use unbounded
// memory.
func TestLeasesAreBounded(t *testing.T) {
	l := New(capacitytest.ID(t, "self"), Limits{})
	ask := func(from peer.ID, i int) string {
		_, err := l.Reserve(capacitytest.Epoch, capacity.Request{ID: fmt.Sprint(i), From: from})
		return reason(t, err)
	}
	for n := range maxLeases / maxLeasesFrom {
		from := capacitytest.ID(t, fmt.Sprint("from ", n))
		for i := range maxLeasesFrom {
			if r := ask(from, i); r != "" {
				t.Fatalf("lease %d of node %d refused for %q", i, n, r)
			}
		}
		if r := ask(from, maxLeasesFrom); r != "leases" {
			t.Fatalf("one lease too many for one node refused for %q", r)
		}
	}
	if r := ask(capacitytest.ID(t, "late"), 0); r != "leases" {
		t.Errorf("one lease too many refused for %q", r)
	}
	l.Release(capacitytest.ID(t, "from 0"), "0")
	if r := ask(capacitytest.ID(t, "late"), 0); r != "" {
		t.Errorf("one lease was released, and yet refused for %q", r)
	}
	if got := l.Totals(capacitytest.Epoch.Add(capacity.LeaseTime)); got.Leases != 0 || got.Sessions != 0 {
		t.Errorf("left when all have expired: %+v", got)
	}
}

func TestTotals(t *testing.T) {
	l := New(capacitytest.ID(t, "self"), Limits{Sessions: 10, Uplink: 1000, Packets: 1000})
	l.Observe(capacitytest.Epoch, Load{Uplink: 300, Packets: 100, CPU: 0.2, CPULimit: 0.8})
	for i, need := range []capacity.Need{
		{Purpose: capacity.View, Stream: "a", Uplink: 50},
		{Purpose: capacity.View, Stream: "a", Uplink: 50},
		{Purpose: capacity.Publish, Stream: "b"},
		{Purpose: capacity.Cascade, Stream: "a", Uplink: 50},
	} {
		if err := l.Admit(capacitytest.Epoch, fmt.Sprint(i), need); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Reserve(capacitytest.Epoch, capacity.Request{ID: "lease", From: capacitytest.ID(t, "from"), Need: capacity.Need{Stream: "c", Uplink: 100}}); err != nil {
		t.Fatal(err)
	}
	got := l.Totals(capacitytest.Epoch)
	want := Totals{
		Sessions: 4, Viewers: 2, Publishers: 1, Cascades: 1, Streams: 3, Leases: 1, Leased: 1,
		Reserved: 250, Stress: 0.55, State: capacity.Active,
		Load:   Load{Uplink: 300, Packets: 100, CPU: 0.2, CPULimit: 0.8},
		Limits: Limits{Sessions: 10, Uplink: 1000, Packets: 1000},
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	var r capacity.Record
	got.Fill(&r)
	if r.Stress() != got.Stress || r.Uplink != (capacity.Usage{Used: 300, Limit: 1000}) || r.Sessions != (capacity.Usage{Used: 4, Limit: 10}) || r.Streams != (capacity.Usage{Used: 3, Limit: 0}) || r.Reserved != 250 {
		t.Errorf("the record says %+v", r)
	}
	if got := l.Totals(capacitytest.Epoch.Add(SettleTime)); got.Reserved != 100 {
		t.Errorf("%d bit/s reserved when active entries have settled, want the lease's 100", got.Reserved)
	}
	if got := l.Totals(capacitytest.Epoch.Add(capacity.LeaseTime)); got.Reserved != 0 || got.Sessions != 3 || got.Streams != 2 {
		t.Errorf("when the lease has expired: %+v", got)
	}
}

func TestStateOfALedger(t *testing.T) {
	l := New(capacitytest.ID(t, "self"), Limits{Uplink: 100})
	for _, tt := range []struct {
		name   string
		uplink int64
		drain  bool
		want   capacity.State
	}{
		{"calm", 50, false, capacity.Active},
		{"busy", 89, false, capacity.Active},
		{"full", 90, false, capacity.Full},
		{"full until there is a little room", 89, false, capacity.Full},
		{"room again", 88, false, capacity.Active},
		{"draining, however calm", 0, true, capacity.Draining},
		{"draining, however full", 100, true, capacity.Draining},
		{"full still, once it stays", 100, false, capacity.Full},
	} {
		l.Observe(capacitytest.Epoch, Load{Uplink: tt.uplink})
		l.SetDraining(tt.drain)
		if got := l.Totals(capacitytest.Epoch).State; got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	l = New(capacitytest.ID(t, "self"), Limits{})
	l.Observe(capacitytest.Epoch, Load{CPU: 1, CPULimit: 1})
	if got := l.Totals(capacitytest.Epoch); got.State != capacity.Active || got.Stress != 1 {
		t.Errorf("a busy CPU without a session: %s at stress %v, want active at 1", got.State, got.Stress)
	}
	if err := l.Admit(capacitytest.Epoch, "here", capacity.Need{}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		cpu  float64
		want capacity.State
	}{
		{"a busy CPU", 0.89, capacity.Active},
		{"a full one", 0.90, capacity.Full},
		{"full until it has calmed down", 0.73, capacity.Full},
		{"calm again", 0.72, capacity.Active},
	} {
		l.Observe(capacitytest.Epoch, Load{CPU: tt.cpu, CPULimit: 1})
		if got := l.Totals(capacitytest.Epoch).State; got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		name  string
		after time.Duration // the first of these
		load  int64
		delay time.Duration
		want  capacity.State
	}{
		{"nearly late", 0, 1000, 49 * ms, capacity.Active},
		{"late", ms, 1000, 50 * ms, capacity.Full},
		{"in time, but late a short while ago", LateTime, 100, 10 * ms, capacity.Full},
		{"in time for long enough", LateTime + ms, 1000, 10 * ms, capacity.Active},
	} {
		now := capacitytest.Epoch.Add(tt.after)
		l.Observe(now, Load{Packets: tt.load, Delay: tt.delay, DelayLimit: 50 * ms})
		got := l.Totals(now)
		var r capacity.Record
		if got.Fill(&r); got.State != tt.want || r.State != tt.want || r.Delay != tt.delay {
			t.Errorf("%s: %s, in the record %s and %v late, want %s", tt.name, got.State, r.State, r.Delay, tt.want)
		}
	}
}

// However much is promised without a limit, the record can be sealed.
func TestTotalsAlwaysFitARecord(t *testing.T) {
	l := New(capacitytest.ID(t, "node"), Limits{})
	for i := range 2000 {
		if err := l.Admit(capacitytest.Epoch, fmt.Sprint(i), capacity.Need{Uplink: maxNeed}); err != nil {
			t.Fatal(err)
		}
	}
	r := capacitytest.Record(t, "node")
	l.Totals(capacitytest.Epoch).Fill(&r)
	if _, err := signed.SealRecord(r, capacitytest.Key(t, "node")); err != nil {
		t.Error(err)
	}
}

// Of many concurrent claims of one lease, one succeeds.
func TestALeaseIsClaimedOnce(t *testing.T) {
	l := New(capacitytest.ID(t, "self"), Limits{})
	from := capacitytest.ID(t, "from")
	for i := range 100 {
		id := fmt.Sprint(i)
		if _, err := l.Reserve(capacitytest.Epoch, capacity.Request{ID: id, From: from}); err != nil {
			t.Fatal(err)
		}
		var got atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if _, err := l.Claim(capacitytest.Epoch, from, id); err == nil {
					got.Add(1)
				}
			})
		}
		wg.Wait()
		if n := got.Load(); n != 1 {
			t.Fatalf("claimed by %d", n)
		}
	}
}

func BenchmarkLedger(b *testing.B) {
	l := New(capacitytest.ID(b, "self"), Limits{Sessions: 1000, Uplink: 1 << 40})
	req := capacity.Request{ID: capacitytest.RequestID, From: capacitytest.ID(b, "from"), Need: capacity.Need{Stream: "demo", Uplink: 5_000_000}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := l.Reserve(capacitytest.Epoch, req); err != nil {
			b.Fatal(err)
		}
		if _, err := l.Claim(capacitytest.Epoch, req.From, req.ID); err != nil {
			b.Fatal(err)
		}
		l.End(req.ID)
	}
}

// A ledger counts its decisions, a repeated request once.
func TestLedgerCounts(t *testing.T) {
	l := New(capacitytest.ID(t, "self"), Limits{Sessions: 2})
	from := capacitytest.ID(t, "from")
	request := func(id string) capacity.Request {
		return capacity.Request{ID: id, From: from, Need: capacity.Need{Stream: "a"}}
	}
	for _, id := range []string{"one", "one"} {
		if _, err := l.Reserve(capacitytest.Epoch, request(id)); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"two", "two"} {
		if err := l.Admit(capacitytest.Epoch, id, capacity.Need{}); err != nil {
			t.Fatal(err)
		}
	}
	_, full := l.Reserve(capacitytest.Epoch, request("three"))
	fuller := l.Admit(capacitytest.Epoch, "three", capacity.Need{})
	malformed := l.Admit(capacitytest.Epoch, "three", capacity.Need{Uplink: -1})
	if reason(t, full) != "sessions" || reason(t, fuller) != "sessions" || reason(t, malformed) != "malformed" {
		t.Fatalf("refused with %v, %v and %v", full, fuller, malformed)
	}
	want := Counts{Leases: 1, Entries: 1, Refused: map[string]uint64{"sessions": 2, "malformed": 1}}
	got := l.Decided()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	got.Refused["sessions"] = 0
	if l.Decided().Refused["sessions"] != 2 {
		t.Error("the caller's copy is the ledger's")
	}
	for r := range want.Refused {
		if !slices.Contains(Reasons(), r) {
			t.Errorf("%s is not among the reasons", r)
		}
	}
}

// One message, or one peer's messages, once filled an idle node: as long as the
// leases lived, every other request was refused. Now a peer gets its share.
func TestLeasesOfOnePeerHoldItsShare(t *testing.T) {
	limits := Limits{Sessions: 500, Uplink: 1_000_000_000, Packets: 100_000, Streams: 200}
	view := capacity.Need{Stream: "live", Uplink: 2_500_000, Packets: 300}
	attacks := map[string]func(l *Ledger, from peer.ID){
		"one message": func(l *Ledger, from peer.ID) {
			_, _ = l.Reserve(capacitytest.Epoch, capacity.Request{ID: "all", From: from, Need: capacity.Need{Uplink: 900_000_000, Packets: 90_000}})
		},
		"a message for each session": func(l *Ledger, from peer.ID) {
			for i := range 1_000 {
				_, _ = l.Reserve(capacitytest.Epoch, capacity.Request{ID: fmt.Sprint(i), From: from, Need: view})
			}
		},
		"a message for each stream": func(l *Ledger, from peer.ID) {
			for i := range 1_000 {
				_, _ = l.Reserve(capacitytest.Epoch, capacity.Request{ID: fmt.Sprint(i), From: from, Need: capacity.Need{Purpose: capacity.Cascade, Stream: fmt.Sprint("s", i)}})
			}
		},
	}
	for name, attack := range attacks {
		for _, share := range []Share{{}, DefaultShare()} {
			limits.Share = share
			l := New(capacitytest.ID(t, "self"), limits)
			attack(l, capacitytest.ID(t, "attacker"))
			held := l.Totals(capacitytest.Epoch)
			refused := 0
			for i := range 30 { // three of each of ten peers
				_, err := l.Reserve(capacitytest.Epoch, capacity.Request{ID: fmt.Sprint(i), From: capacitytest.ID(t, fmt.Sprint("honest ", i%10)), Need: view})
				if err != nil {
					refused++
				}
			}
			t.Logf("%s, one part in %d: %d sessions, %d Mbit/s, %d streams held; %d of 30 honest requests refused",
				name, share.Part, held.Sessions, held.Reserved/1e6, held.Streams, refused)
			if share.Part > 0 && (refused > 0 || held.Sessions > 50 || held.Reserved > 100_000_000 || held.Streams > 20) {
				t.Errorf("%s holds more than a tenth, or keeps others out", name)
			}
		}
	}
}

// A share of a small limit is still enough for one stream: small nodes help
// too.
func TestShareOfASmallNode(t *testing.T) {
	view := capacity.Need{Stream: "live", Uplink: 2_500_000, Packets: 300}
	for _, tt := range []struct {
		name   string
		limits Limits
		need   capacity.Need
		count  int // of requests granted
		want   string
	}{
		{"one session of two", Limits{Sessions: 2}, view, 1, "share"},
		{"one session of nineteen", Limits{Sessions: 19}, view, 1, "share"},
		{"two of twenty", Limits{Sessions: 20}, view, 2, "share"},
		{"a viewer on an uplink of 3 Mbit/s", Limits{Uplink: 3_000_000}, view, 1, "uplink"},
		{"three on one of 50", Limits{Uplink: 50_000_000}, view, 3, "share"},
		{"a good picture on one of 20", Limits{Uplink: 20_000_000}, capacity.Need{Uplink: 8_000_000}, 1, "share"},
		{"four on one of 100", Limits{Uplink: 100_000_000}, view, 4, "share"},
		{"one stream of three", Limits{Streams: 3}, view, maxLeasesFrom, "leases"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.limits.Share = DefaultShare()
			l := New(capacitytest.ID(t, "self"), tt.limits)
			granted := 0
			var err error
			for ; err == nil && granted < 1_000; granted++ {
				_, err = l.Reserve(capacitytest.Epoch, capacity.Request{ID: fmt.Sprint(granted), From: capacitytest.ID(t, "from"), Need: tt.need})
			}
			if granted--; granted != tt.count || reason(t, err) != tt.want {
				t.Errorf("%d granted, then %v; want %d and %q", granted, err, tt.count, tt.want)
			}
			// Sessions without a lease, and the node's own, are bounded by the
			// limits alone.
			if tt.want == "share" {
				if err := l.Admit(capacitytest.Epoch, "here", tt.need); err != nil {
					t.Errorf("a client of its own: %v", err)
				}
				l.End("here")
				if _, err := l.Reserve(capacitytest.Epoch, capacity.Request{ID: "own", From: capacitytest.ID(t, "self"), Need: tt.need}); err != nil {
					t.Errorf("a lease of its own: %v", err)
				}
			}
		})
	}
	// Claimed, released and expired leases do not count any more.
	l := New(capacitytest.ID(t, "self"), Limits{Sessions: 5, Share: DefaultShare()})
	from := capacitytest.ID(t, "from")
	ends := []func(id string){
		func(id string) { _, _ = l.Claim(capacitytest.Epoch, from, id) },
		func(id string) { l.Release(from, id) },
		func(string) {},
	}
	for i, end := range ends {
		id := fmt.Sprint(i)
		if _, err := l.Reserve(capacitytest.Epoch, capacity.Request{ID: id, From: from, Need: view}); err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		end(id)
	}
	if _, err := l.Reserve(capacitytest.Epoch.Add(capacity.LeaseTime), capacity.Request{ID: "late", From: from, Need: view}); err != nil {
		t.Errorf("after a lease has run out: %v", err)
	}
}

// New limits apply from the next request on, and end nothing.
func TestLimitsThatChange(t *testing.T) {
	now := time.Unix(0, 0)
	l := New("me", Limits{Sessions: 2})
	for _, id := range []string{"a", "b"} {
		if err := l.Admit(now, id, capacity.Need{}); err != nil {
			t.Fatal(err)
		}
	}
	l.SetLimits(Limits{Sessions: 1})
	if got := l.Totals(now); got.Sessions != 2 || got.State != capacity.Full || got.Limits.Sessions != 1 {
		t.Errorf("%d of %d sessions, state %v; want 2 of 1, full", got.Sessions, got.Limits.Sessions, got.State)
	}
	l.End("a")
	if err := l.Admit(now, "c", capacity.Need{}); err == nil {
		t.Error("a second one got in")
	}
	l.SetLimits(Limits{Sessions: 3})
	if err := l.Admit(now, "c", capacity.Need{}); err != nil {
		t.Error(err)
	}
	if got := l.Totals(now).State; got != capacity.Active {
		t.Errorf("state %v with room", got)
	}
}
