package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"weir/capacity"
	"weir/capacity/policy"
)

// The systems that place viewers.
const (
	Weir        = "weir"
	WeirHotCold = "weir, hot-cold policy"
	Random      = "random"
	AskAll      = "ask all, fresh"
	Central     = "central, stale"
	Incremental = "central, incremental"
	TwoChoices  = "two choices, stale"
	Jitsi       = "Jitsi's rule"
	LiveKit     = "LiveKit's rule"
	LiveKitTwo  = "LiveKit's, two choices"
	Prequal     = "Prequal, asking"
	PrequalPool = "Prequal, from a pool"
	JoinIdle    = "join-idle-queue"
	Atm0s       = "atm0s's rule"
	Nearest     = "nearest with room"
	Knowing     = "all-knowing, least loaded"
	KnowingDraw = "all-knowing, weir's policy"
)

// Rivals are the systems that weir is compared with: other systems, weir with
// another policy, and two with complete and current knowledge, for reference.
var Rivals = []string{WeirHotCold, Random, TwoChoices, Central, Incremental, AskAll, Prequal, PrequalPool, JoinIdle, Nearest, Jitsi, LiveKit, LiveKitTwo, Atm0s, KnowingDraw, Knowing}

// placesByWeir reports whether who is weir, with any policy.
func placesByWeir(who string) bool { return who == Weir || who == WeirHotCold }

// policyOf is the policy of who.
func policyOf(who string) policy.Policy {
	if who == WeirHotCold {
		return hotCold()
	}
	return policy.Default()
}

// hotAt is the stress from which a node is hot.
const hotAt = 0.8

// hotCold is a policy that takes the nearest cold node, and the least loaded
// one if all are hot, as Prequal does.
func hotCold() policy.Policy {
	p := policy.Default()
	p.Name = "hot-cold"
	p.Score = []policy.Term{
		{Name: "cold", Expr: fmt.Sprintf("r.stress < %v && r.trust > %v ? 1 + (rtt > 0 ? 1 / (1 + rtt / 50) : 0.25) : 0", hotAt, 1-hotAt), Weight: 1},
		{Name: "headroom", Expr: "max(0, min(1 - r.stress, r.trust))", Weight: 0.2},
	}
	return p
}

const (
	rivalTries = 6 // as many as weir makes

	// As in jicofo: a bridge counts as overloaded from this stress on, and
	// every participant sent there within the last seconds adds an estimate of
	// the load that the bridge has not reported yet.
	jitsiOverload = 0.8
	jitsiAdds     = 0.01
	jitsiRamp     = 20 * time.Second

	liveKitLimit = 0.9
)

// claimed is the load of n known to a central scheduler: that of its last record.
func claimed(n *node) float64 { return n.record.Stress() }

// admits reports whether targets refuse viewers without room. Nodes of Jitsi,
// LiveKit and atm0s accept every viewer sent to them.
func admits(who string) bool {
	return who != Jitsi && who != LiveKit && who != LiveKitTwo && who != Atm0s
}

// choose returns the node to which who sends a viewer of s, other than those
// tried, or nil.
func (w *world) choose(who string, s *node, tried []*node) *node {
	switch who {
	case Random:
		return w.draw(tried, func(*node) bool { return true })
	case TwoChoices:
		return w.better(tried, func(*node) bool { return true })
	case Central:
		return w.least(tried, w.nodes, claimed, usable)
	case Incremental:
		return w.least(tried, w.nodes, func(n *node) float64 {
			return claimed(n) + float64(n.added)*viewerUplink/float64(n.record.Uplink.Limit)
		}, usable)
	case AskAll, Knowing:
		return w.least(tried, w.nodes, w.really, math.Inf(1))
	case Jitsi:
		for _, among := range [][]*node{s.in.nodes, w.nodes} {
			if n := w.least(tried, among, w.jitsiStress, jitsiOverload); n != nil {
				return n
			}
		}
		return w.least(tried, w.nodes, w.jitsiStress, math.Inf(1))
	case LiveKit, LiveKitTwo:
		pick := w.draw
		if who == LiveKitTwo {
			pick = w.better
		}
		if n := pick(tried, func(n *node) bool { return claimed(n) < liveKitLimit }); n != nil {
			return n
		}
		return pick(tried, func(*node) bool { return true }) // all may be tried again
	case PrequalPool:
		return w.fromPool(s, tried)
	case JoinIdle:
		return w.nextIdle(s, tried)
	case Atm0s:
		return w.firstOfZone(s, tried)
	case Nearest:
		return w.nearestWithRoom(s, tried)
	case KnowingDraw:
		return w.bestByPolicy(s, tried)
	}
	return nil
}

// really is the used share of n's usable capacity, leases included.
func (w *world) really(n *node) float64 {
	return float64(max(n.active, n.ledger.Totals(w.clock()).Sessions)) / float64(n.sessions)
}

func (w *world) jitsiStress(n *node) float64 {
	n.recent = slices.DeleteFunc(n.recent, func(at time.Duration) bool { return w.now-at > jitsiRamp })
	return claimed(n)/usable + jitsiAdds*float64(len(n.recent))
}

// draw returns a random node for which fit is true, or nil.
func (w *world) draw(tried []*node, fit func(*node) bool) *node {
	for range 64 {
		if n := w.nodes[w.rnd.IntN(len(w.nodes))]; fit(n) && !slices.Contains(tried, n) {
			return n
		}
	}
	var left []*node
	for _, n := range w.nodes {
		if fit(n) && !slices.Contains(tried, n) {
			left = append(left, n)
		}
	}
	if len(left) == 0 {
		return nil
	}
	return left[w.rnd.IntN(len(left))]
}

// better returns the less loaded of two random nodes, by their last records
// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE
// TPDS 12(10), 2001).
func (w *world) better(tried []*node, fit func(*node) bool) *node {
	a, b := w.draw(tried, fit), w.draw(tried, fit)
	if b != nil && claimed(b) < claimed(a) {
		return b
	}
	return a
}

// least returns the node with the lowest value of of, if below limit; a random
// one of equals.
func (w *world) least(tried, among []*node, of func(*node) float64, limit float64) *node {
	var best *node
	low, ties := limit, 0
	for _, n := range among {
		switch x := of(n); {
		case x > low || x == low && (best == nil || math.IsInf(low, 1)) || slices.Contains(tried, n):
		case x < low:
			best, low, ties = n, x, 1
		default:
			if ties++; w.rnd.IntN(ties) == 0 {
				best = n
			}
		}
	}
	return best
}

// bestByPolicy is weir with complete knowledge: rank every node of the region
// as it is now, or all others if none of those has room, and draw among the
// best.
func (w *world) bestByPolicy(s *node, tried []*node) *node {
	me := capacity.Record{Node: s.id, Region: s.in.label, Coordinate: s.coord}
	for _, among := range [][]*node{s.in.nodes, w.nodes} {
		var candidates []policy.Candidate
		for _, n := range among {
			if !slices.Contains(tried, n) {
				candidates = append(candidates, policy.Candidate{Record: w.sample(n), RTT: s.rtt(n), Trust: 1})
			}
		}
		drawn := w.judge.Rank(viewerNeed, me, candidates).Draw(1, 0, w.rnd)
		if len(drawn) > 0 {
			return w.byID[drawn[0].Record.Node]
		}
	}
	return nil
}

var viewerNeed = capacity.Need{Purpose: capacity.View, Uplink: viewerUplink, Packets: viewerPackets}

// view places one viewer, by who, for the given time.
func (w *world) view(who string, ingress *node, lasts time.Duration) {
	began := w.now
	if placesByWeir(who) {
		w.place(ingress, viewerNeed, func(p *placing, n *node) {
			w.count(&p.cost, w.now-began, n)
			if n != nil {
				w.sent(ingress, n)
				w.after(connecting, func() { w.arrive(ingress, n, p.id, lasts) })
			}
		})
		return
	}
	w.rivalView(who, ingress, nil, began, lasts)
}

// arrive starts the session of a viewer with a lease.
func (w *world) arrive(seeker, n *node, lease string, lasts time.Duration) {
	if _, err := n.ledger.Claim(w.clock(), seeker.id, lease); err != nil {
		return // the lease has expired
	}
	w.seat(n, lease, lasts)
	if w.feedback {
		w.watchDelivery(seeker, n, lasts)
	}
}

// rivalView tries one node after another. A central scheduler is half a mean
// round trip away, and so are all nodes.
func (w *world) rivalView(who string, s *node, tried []*node, began, lasts time.Duration) {
	knowing := who == Knowing || who == KnowingDraw
	ask, trip := meanRTT/2, meanRTT
	if knowing {
		ask, trip = 0, 0
	}
	chosen := func(n *node) {
		c := cost{}
		if n == nil {
			w.count(&c, w.now-began, nil)
			return
		}
		n.added++
		n.recent = append(n.recent, w.now)
		admit := func() {
			id := w.requestID()
			err := n.ledger.Admit(w.clock(), id, viewerNeed)
			if err != nil && len(tried) == 0 && w.counting {
				w.firstRefused++
			}
			switch {
			case err == nil:
				w.count(&c, w.now+trip/2-began, n)
				w.sent(s, n)
				w.seat(n, id, lasts)
			case !admits(who):
				w.count(&c, w.now+trip/2-began, n)
				if w.counting {
					w.overfull++
				}
				w.sent(s, n)
				w.seat(n, "", lasts)
			case len(tried)+1 < rivalTries:
				w.rivalView(who, s, append(tried, n), began, lasts)
			default:
				w.count(&c, w.now+trip/2-began, nil)
			}
		}
		if knowing {
			admit()
			return
		}
		w.after(trip/2, admit)
	}
	if who == Prequal {
		w.askSome(s, tried, chosen)
		return
	}
	w.after(ask, func() { chosen(w.choose(who, s, tried)) })
}
