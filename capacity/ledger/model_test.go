package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"weir/capacity"
	"weir/capacity/capacitytest"
)

// A call is one of a ledger's methods with its arguments, of which each method
// uses some.
type call struct {
	method   string
	now      time.Time
	from     peer.ID
	id       string
	need     capacity.Need
	load     Load
	draining bool
}

// An answer is a call's result.
type answer struct {
	lease   capacity.Lease
	refused string // the refusal's reason, or "no lease"
	sums    sums
}

// sums are the fields of Totals that follow from the promises.
type sums struct {
	sessions, leases, streams     int
	viewers, publishers, cascades int
	reserved                      int64
}

func (c call) of(l *Ledger) (a answer) {
	var err error
	switch c.method {
	case "reserve":
		a.lease, err = l.Reserve(c.now, capacity.Request{ID: c.id, From: c.from, Need: c.need})
	case "claim":
		a.lease, err = l.Claim(c.now, c.from, c.id)
	case "admit":
		err = l.Admit(c.now, c.id, c.need)
	case "end":
		l.End(c.id)
	case "release":
		l.Release(c.from, c.id)
	case "observe":
		l.Observe(c.now, c.load)
	case "drain":
		l.SetDraining(c.draining)
	case "totals":
		t := l.Totals(c.now)
		a.sums = sums{t.Sessions, t.Leases, t.Streams, t.Viewers, t.Publishers, t.Cascades, t.Reserved}
	}
	var r *capacity.Refusal
	switch {
	case errors.As(err, &r):
		a.refused = r.Reason
	case errors.Is(err, ErrNoLease):
		a.refused = "no lease"
	case err != nil:
		panic(err)
	}
	return a
}

// model is the ledger as documented: one list of holdings, summed anew at every
// call.
type model struct {
	self     peer.ID
	limits   Limits // of uplink and packets: multiples of ten
	now      time.Time
	load     Load
	draining bool
	held     map[holding]heldNeed
}

// A holding is a lease or an active entry.
type holding struct {
	active bool
	from   peer.ID // "" for an active one
	id     string
}

type heldNeed struct {
	need  capacity.Need
	until time.Time // when a lease expires, or an active entry has settled
}

func newModel(self peer.ID, limits Limits) *model {
	return &model{self: self, limits: limits, held: map[holding]heldNeed{}}
}

func (m *model) clone() *model {
	c := *m
	c.held = maps.Clone(m.held)
	return &c
}

func (m *model) equal(o *model) bool {
	return m.now.Equal(o.now) && m.load == o.load && m.draining == o.draining && maps.Equal(m.held, o.held)
}

// answer is the result that c must have. It updates m.
func (m *model) answer(c call) (a answer) {
	lease := holding{false, c.from, c.id}
	active := holding{true, "", c.id}
	if c.now.After(m.now) {
		m.now = c.now
	}
	if !c.now.IsZero() {
		maps.DeleteFunc(m.held, func(k holding, h heldNeed) bool { return !k.active && !m.now.Before(h.until) })
	}
	l, isLeased := m.held[lease]
	_, isActive := m.held[active]
	leased := capacity.Lease{ID: c.id, Target: m.self, From: c.from, Need: l.need, Expires: l.until}
	switch c.method {
	case "reserve":
		switch {
		case isLeased && l.need != c.need:
			a.refused = "malformed"
		case isLeased:
			a.lease = leased
		case isActive:
			a.refused = "claimed"
		default:
			if a.refused = cmp.Or(m.lacks(c.need), m.beyondShare(c.from, c.need)); a.refused == "" {
				a.lease = capacity.Lease{ID: c.id, Target: m.self, From: c.from, Need: c.need, Expires: m.now.Add(capacity.LeaseTime)}
				m.held[lease] = heldNeed{c.need, a.lease.Expires}
			}
		}
	case "claim":
		if !isLeased || isActive {
			a.refused = "no lease"
			break
		}
		a.lease = leased
		delete(m.held, lease)
		m.held[active] = heldNeed{l.need, m.now.Add(SettleTime)}
	case "admit":
		if isActive {
			break
		}
		if a.refused = m.lacks(c.need); a.refused == "" {
			m.held[active] = heldNeed{c.need, m.now.Add(SettleTime)}
		}
	case "end":
		delete(m.held, active)
	case "release":
		delete(m.held, lease)
	case "observe":
		m.load = c.load
	case "drain":
		m.draining = c.draining
	case "totals":
		a.sums, _, _ = m.sums()
	}
	return a
}

// sums also returns the packets promised and the streams.
func (m *model) sums() (s sums, packets int64, streams map[string]bool) {
	streams = map[string]bool{}
	for k, h := range m.held {
		if h.need.Purpose != capacity.Cascade {
			s.sessions++
		}
		if m.now.Before(h.until) {
			s.reserved += h.need.Uplink
			packets += h.need.Packets
		}
		if h.need.Stream != "" {
			streams[h.need.Stream] = true
		}
		switch {
		case !k.active:
			s.leases++
		case h.need.Purpose == capacity.View:
			s.viewers++
		case h.need.Purpose == capacity.Publish:
			s.publishers++
		default:
			s.cascades++
		}
	}
	s.streams = len(streams)
	return s, packets, streams
}

// lacks returns the resource without room for need, or "".
func (m *model) lacks(need capacity.Need) string {
	s, packets, streams := m.sums()
	own := need.Purpose != capacity.Cascade
	most := func(limit int64) int64 {
		if own {
			return limit * 9 / 10
		}
		return limit
	}
	switch {
	case own && m.draining:
		return "draining"
	case own && m.limits.Sessions > 0 && s.sessions+1 > m.limits.Sessions:
		return "sessions"
	case m.limits.Uplink > 0 && m.load.Uplink+s.reserved+need.Uplink > most(m.limits.Uplink):
		return "uplink"
	case m.limits.Packets > 0 && m.load.Packets+packets+need.Packets > most(m.limits.Packets):
		return "packets"
	case m.limits.Streams > 0 && need.Stream != "" && !streams[need.Stream] && len(streams)+1 > m.limits.Streams:
		return "streams"
	}
	return ""
}

// beyondShare is "share" if from would exceed the share of one node, or "".
func (m *model) beyondShare(from peer.ID, need capacity.Need) string {
	if m.limits.Share.Part == 0 || from == m.self {
		return ""
	}
	held := m.clone()
	maps.DeleteFunc(held.held, func(k holding, _ heldNeed) bool { return k.active || k.from != from })
	before, packets, streams := held.sums()
	held.held[holding{false, from, "asked"}] = heldNeed{need, m.now.Add(capacity.LeaseTime)}
	after, packetsAfter, streamsAfter := held.sums()
	part := int64(m.limits.Share.Part)
	for _, r := range []struct{ before, after, limit, least int64 }{
		{int64(before.sessions), int64(after.sessions), int64(m.limits.Sessions), 1},
		{before.reserved, after.reserved, m.limits.Uplink, m.limits.Share.Uplink},
		{packets, packetsAfter, m.limits.Packets, m.limits.Share.Packets},
		{int64(len(streams)), int64(len(streamsAfter)), int64(m.limits.Streams), 1},
	} {
		if r.limit > 0 && r.after > r.before && r.after > max(r.limit/part, r.least) {
			return "share"
		}
	}
	return ""
}

// In any order of events, the ledger decides as the model does and has the same
// sums: nothing is oversubscribed, a repeated request costs nothing, and
// expired, ended or released room is free again.
func TestLedgerFollowsItsModel(t *testing.T) {
	self := capacitytest.ID(t, "self")
	froms := []peer.ID{capacitytest.ID(t, "a"), capacitytest.ID(t, "b"), self}
	rapid.Check(t, func(t *rapid.T) {
		limits := Limits{
			Sessions: rapid.IntRange(0, 4).Draw(t, "session limit"),
			Uplink:   10 * rapid.Int64Range(0, 10).Draw(t, "uplink limit/10"),
			Packets:  10 * rapid.Int64Range(0, 10).Draw(t, "packet limit/10"),
			Streams:  rapid.IntRange(0, 3).Draw(t, "stream limit"),
			Share: Share{
				Part:    rapid.SampledFrom([]int{0, 2, 10}).Draw(t, "share"),
				Uplink:  rapid.Int64Range(0, 40).Draw(t, "least uplink"),
				Packets: rapid.Int64Range(0, 40).Draw(t, "least packets"),
			},
		}
		l, m := New(self, limits), newModel(self, limits)
		now := capacitytest.Epoch
		check := func(t *rapid.T, c call) {
			if got, want := c.of(l), m.answer(c); got != want {
				t.Fatalf("%+v:\ngot  %+v\nwant %+v", c, got, want)
			}
		}
		drawFrom := rapid.SampledFrom(froms)
		drawID := rapid.SampledFrom([]string{"1", "2", "3", "4", "5"})
		drawNeed := rapid.Custom(func(t *rapid.T) capacity.Need {
			return capacity.Need{
				Purpose: capacity.Purpose(rapid.IntRange(0, 2).Draw(t, "purpose")),
				Stream:  rapid.SampledFrom([]string{"", "x", "y", "z", "w"}).Draw(t, "stream"),
				Uplink:  rapid.Int64Range(0, 40).Draw(t, "uplink"),
				Packets: rapid.Int64Range(0, 40).Draw(t, "packets"),
			}
		})
		t.Repeat(map[string]func(*rapid.T){
			"reserve": func(t *rapid.T) {
				check(t, call{method: "reserve", now: now, from: drawFrom.Draw(t, "from"), id: drawID.Draw(t, "id"), need: drawNeed.Draw(t, "need")})
			},
			"claim": func(t *rapid.T) {
				check(t, call{method: "claim", now: now, from: drawFrom.Draw(t, "from"), id: drawID.Draw(t, "id")})
			},
			"admit": func(t *rapid.T) {
				check(t, call{method: "admit", now: now, id: drawID.Draw(t, "id"), need: drawNeed.Draw(t, "need")})
			},
			"end": func(t *rapid.T) { check(t, call{method: "end", id: drawID.Draw(t, "id")}) },
			"release": func(t *rapid.T) {
				check(t, call{method: "release", from: drawFrom.Draw(t, "from"), id: drawID.Draw(t, "id")})
			},
			"time passes": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 6000).Draw(t, "ms")) * time.Millisecond)
			},
			"measure": func(t *rapid.T) {
				load := Load{Uplink: rapid.Int64Range(0, 60).Draw(t, "uplink"), Packets: rapid.Int64Range(0, 60).Draw(t, "packets")}
				check(t, call{method: "observe", now: now, load: load})
			},
			"drain": func(t *rapid.T) { check(t, call{method: "drain", draining: rapid.Bool().Draw(t, "draining")}) },
			"": func(t *rapid.T) {
				check(t, call{method: "totals", now: now})
				if n := l.Totals(now).Sessions; limits.Sessions > 0 && n > limits.Sessions {
					t.Fatalf("%d of %d sessions", n, limits.Sessions)
				}
				for from, held := range heldBy(m) {
					if why := aboveShare(limits, held); why != "" && from != self {
						t.Fatalf("%s holds by leases: %s", from, why)
					}
				}
			},
		})
	})
}

// heldBy are the needs of the leases in m, by holder.
func heldBy(m *model) map[peer.ID][]capacity.Need {
	by := map[peer.ID][]capacity.Need{}
	for k, h := range m.held {
		if !k.active && m.now.Before(h.until) {
			by[k.from] = append(by[k.from], h.need)
		}
	}
	return by
}

// aboveShare is the resource in which leases for these needs exceed one node's
// share, computed independently, or "".
func aboveShare(limits Limits, needs []capacity.Need) string {
	var sessions, uplink, packets int64
	streams := map[string]bool{}
	for _, need := range needs {
		if need.Purpose != capacity.Cascade {
			sessions++
		}
		uplink += need.Uplink
		packets += need.Packets
		if need.Stream != "" {
			streams[need.Stream] = true
		}
	}
	if limits.Share.Part == 0 {
		return ""
	}
	for _, r := range []struct {
		what               string
		held, limit, least int64
	}{
		{"sessions", sessions, int64(limits.Sessions), 1},
		{"bit/s", uplink, limits.Uplink, limits.Share.Uplink},
		{"packets/s", packets, limits.Packets, limits.Share.Packets},
		{"streams", int64(len(streams)), int64(limits.Streams), 1},
	} {
		if r.limit > 0 && r.held > r.least && r.held*int64(limits.Share.Part) > r.limit {
			return fmt.Sprintf("%d of %d %s", r.held, r.limit, r.what)
		}
	}
	return ""
}

// linearizable says whether the calls of a history, each at some moment between
// its begin and its end, could have been made of the model one by one: then no
// limit was exceeded at any moment, every refusal came when there was no room,
// and a repeated request got the same lease (Herlihy and Wing,
// "Linearizability", ACM TOPLAS 12(3), 1990).
func linearizable(m *model, history []porcupine.Operation) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(porcupine.Model{
		Init: func() any { return m },
		Step: func(state, input, output any) (bool, any) {
			next := state.(*model).clone()
			return next.answer(input.(call)) == output.(answer), next
		},
		Equal: func(a, b any) bool { return a.(*model).equal(b.(*model)) },
	}, history, 30*time.Second)
}

// Concurrent callers use few IDs and little room, while time passes and leases
// expire: the model must explain each history.
func TestConcurrentHistoriesOfALedger(t *testing.T) {
	const (
		histories = 40
		clients   = 6
		calls     = 40 // by each
	)
	self := capacitytest.ID(t, "self")
	froms := []peer.ID{capacitytest.ID(t, "a"), capacitytest.ID(t, "b")}
	answers, overlaps := map[string]int{}, 0
	for seed := range uint64(histories) {
		limits := Limits{Sessions: 3, Uplink: 100, Packets: 100, Streams: 2, Share: Share{Part: int(seed%3) * 2, Uplink: 10, Packets: 30}}
		l := New(self, limits)
		var order atomic.Int64 // of begins and ends
		var clock atomic.Int64 // milliseconds
		done := make([][]porcupine.Operation, clients)
		start := make(chan struct{})
		var wg sync.WaitGroup
		for client := range clients {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, uint64(client)))
				<-start
				for range calls {
					c := randomCall(rnd, froms)
					if now := clock.Add(100 * rnd.Int64N(4)); c.method != "end" && c.method != "release" && c.method != "drain" {
						c.now = capacitytest.Epoch.Add(time.Duration(now) * time.Millisecond)
					}
					begin := order.Add(1)
					if rnd.IntN(2) == 0 {
						runtime.Gosched() // even on one core, calls overlap
					}
					a := c.of(l)
					end := order.Add(1)
					done[client] = append(done[client], porcupine.Operation{ClientId: client, Input: c, Call: begin, Output: a, Return: end})
				}
			})
		}
		close(start)
		wg.Wait()
		history := slices.Concat(done...)
		if got := linearizable(newModel(self, limits), history); got != porcupine.Ok {
			t.Fatalf("seed %d: %s:\n%s", seed, got, describe(history))
		}
		last := int64(0)
		for _, op := range slices.SortedFunc(slices.Values(history), byBegin) {
			if op.Call < last {
				overlaps++
			}
			last = max(last, op.Return)
			answers[op.Input.(call).method+" "+op.Output.(answer).refused]++
		}
	}
	t.Log(overlaps, "of", histories*clients*calls, "overlap:", answers)
	if overlaps < histories*clients*calls/10 {
		t.Errorf("only %d calls began while others ran", overlaps)
	}
	for _, want := range []string{"reserve ", "reserve sessions", "reserve uplink", "reserve streams", "reserve claimed", "reserve share", "claim ", "admit ", "admit draining"} {
		if answers[want] == 0 {
			t.Errorf("%q never came up", want)
		}
	}
}

// randomCall makes a call without a time. A need follows from its ID, so that a
// repeated ID is a repeated request.
func randomCall(rnd *rand.Rand, froms []peer.ID) call {
	n := rnd.IntN(5)
	c := call{from: froms[rnd.IntN(len(froms))], id: fmt.Sprint(n)}
	switch p := rnd.IntN(100); {
	case p < 35:
		c.method = "reserve"
	case p < 55:
		c.method = "claim"
	case p < 65:
		c.method = "admit"
	case p < 77:
		c.method = "end"
	case p < 85:
		c.method = "release"
	case p < 90:
		c.method, c.load = "observe", Load{Uplink: rnd.Int64N(50), Packets: rnd.Int64N(50)}
	case p < 94:
		c.method, c.draining = "drain", rnd.IntN(3) == 0
	default:
		c.method = "totals"
	}
	if c.method == "reserve" || c.method == "admit" {
		c.need = capacity.Need{Purpose: capacity.Purpose(n % 3), Stream: []string{"x", "y", "z"}[n/2], Uplink: 8 * int64(n), Packets: 32 - 8*int64(n)}
	}
	return c
}

func byBegin(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) }

// describe prints a history in the order in which its calls began.
func describe(history []porcupine.Operation) string {
	var b strings.Builder
	for _, op := range slices.SortedFunc(slices.Values(history), byBegin) {
		fmt.Fprintf(&b, "%d…%d client %d %+v: %+v\n", op.Call, op.Return, op.ClientId, op.Input, op.Output)
	}
	return b.String()
}

// The check above detects wrong histories.
func TestHistoriesThatNoLedgerHas(t *testing.T) {
	self, from := capacitytest.ID(t, "self"), capacitytest.ID(t, "a")
	reserve := func(id string) call {
		return call{method: "reserve", now: capacitytest.Epoch, from: from, id: id, need: capacity.Need{Uplink: 10}}
	}
	claim := func(id string) call { return call{method: "claim", now: capacitytest.Epoch, from: from, id: id} }
	later := func(c call, d time.Duration) call { c.now = c.now.Add(d); return c }
	granted := func(id string, at time.Duration) answer {
		return answer{lease: capacity.Lease{ID: id, Target: self, From: from, Need: capacity.Need{Uplink: 10}, Expires: capacitytest.Epoch.Add(at + capacity.LeaseTime)}}
	}
	refused := func(reason string) answer { return answer{refused: reason} }
	type done struct {
		c          call
		a          answer
		begin, end int64
	}
	for _, tt := range []struct {
		name    string
		history []done
		want    porcupine.CheckResult
	}{
		{"one of two at once", []done{{reserve("1"), granted("1", 0), 1, 3}, {reserve("2"), refused("sessions"), 2, 4}}, porcupine.Ok},
		{"both of two, where one fits", []done{{reserve("1"), granted("1", 0), 1, 3}, {reserve("2"), granted("2", 0), 2, 4}}, porcupine.Illegal},
		{"a refusal before anything was granted", []done{{reserve("2"), refused("sessions"), 1, 2}, {reserve("1"), granted("1", 0), 3, 4}}, porcupine.Illegal},
		{"a refusal for another reason", []done{{reserve("1"), granted("1", 0), 1, 2}, {reserve("2"), refused("uplink"), 3, 4}}, porcupine.Illegal},
		{"a refusal after release", []done{
			{reserve("1"), granted("1", 0), 1, 2}, {call{method: "release", from: from, id: "1"}, answer{}, 3, 4}, {reserve("2"), refused("sessions"), 5, 6},
		}, porcupine.Illegal},
		{"a refusal during release", []done{
			{reserve("1"), granted("1", 0), 1, 2}, {call{method: "release", from: from, id: "1"}, answer{}, 3, 6}, {reserve("2"), refused("sessions"), 4, 5},
		}, porcupine.Ok},
		{"a refusal after expiry", []done{{reserve("1"), granted("1", 0), 1, 2}, {later(reserve("2"), capacity.LeaseTime), refused("sessions"), 3, 4}}, porcupine.Illegal},
		{"the same lease again", []done{{reserve("1"), granted("1", 0), 1, 2}, {later(reserve("1"), time.Second), granted("1", 0), 3, 4}}, porcupine.Ok},
		{"a longer lease again", []done{{reserve("1"), granted("1", 0), 1, 2}, {later(reserve("1"), time.Second), granted("1", time.Second), 3, 4}}, porcupine.Illegal},
		{"a lease claimed by two", []done{{reserve("1"), granted("1", 0), 1, 2}, {claim("1"), granted("1", 0), 3, 5}, {claim("1"), granted("1", 0), 4, 6}}, porcupine.Illegal},
		{"a lease claimed after expiry", []done{{reserve("1"), granted("1", 0), 1, 2}, {later(claim("1"), capacity.LeaseTime), granted("1", 0), 3, 4}}, porcupine.Illegal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var history []porcupine.Operation
			for i, d := range tt.history {
				history = append(history, porcupine.Operation{ClientId: i, Input: d.c, Call: d.begin, Output: d.a, Return: d.end})
			}
			if got := linearizable(newModel(self, Limits{Sessions: 1}), history); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
