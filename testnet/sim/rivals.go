package sim

import (
	"fmt"
	"math"
	"slices"
	"time"

	"weir/capacity"
	"weir/capacity/policy"
)

// Who places viewers.
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

// Rivals are the rules that weir is compared with: weir itself with another
// policy, and two that know all and are never late, for reference.
var Rivals = []string{WeirHotCold, Random, TwoChoices, Central, Incremental, AskAll, Prequal, PrequalPool, JoinIdle, Nearest, Jitsi, LiveKit, LiveKitTwo, Atm0s, KnowingDraw, Knowing}

// placesByWeir says whether who is weir, by whatever policy.
func placesByWeir(who string) bool { return who == Weir || who == WeirHotCold }

// policyOf is the policy that who places by.
func policyOf(who string) policy.Policy {
	if who == WeirHotCold {
		return hotCold()
	}
	return policy.Default()
}

// hotAt is the stress from which on a node is hot.
const hotAt = 0.8

// hotCold is a policy that takes the nearest cold node, and the least loaded if
// all are hot, as Prequal does.
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

	// As jicofo has it: a bridge counts as overloaded from this stress on, and
	// every participant sent there within the last seconds adds something that
	// the bridge's own report does not show yet.
	jitsiOverload = 0.8
	jitsiAdds     = 0.01
	jitsiRamp     = 20 * time.Second

	liveKitLimit = 0.9
)

// claimed is what a centre knows of n: its last record.
func claimed(n *node) float64 { return n.record.Stress() }

// admits says whether targets refuse what they have no room for. Those of
// Jitsi, LiveKit and atm0s take whomever they are sent.
func admits(who string) bool {
	return who != Jitsi && who != LiveKit && who != LiveKitTwo && who != Atm0s
}

// choose returns whom who sends a viewer of s to, those tried left out, or nil.
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
		return pick(tried, func(*node) bool { return true }) // all are eligible again
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

// really is the share of what n may be filled with that is filled, leases
// included.
func (w *world) really(n *node) float64 {
	return float64(max(n.active, n.ledger.Totals(w.clock()).Sessions)) / float64(n.sessions)
}

func (w *world) jitsiStress(n *node) float64 {
	n.recent = slices.DeleteFunc(n.recent, func(at time.Duration) bool { return w.now-at > jitsiRamp })
	return claimed(n)/usable + jitsiAdds*float64(len(n.recent))
}

// draw returns a random node that is fit, or nil.
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

// better returns the less loaded of two random ones, by their last records
// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE
// TPDS 12(10), 2001).
func (w *world) better(tried []*node, fit func(*node) bool) *node {
	a, b := w.draw(tried, fit), w.draw(tried, fit)
	if b != nil && claimed(b) < claimed(a) {
		return b
	}
	return a
}

// least returns the node with the least of something below limit. Equals are
// drawn among.
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

// bestByPolicy is what weir would do if it knew all: of every node of the
// region as it is now, and of all others if none of those has room, draw among
// the best.
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

// view places one viewer, by who, for so long.
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

// arrive has a viewer turn up with a lease.
func (w *world) arrive(seeker, n *node, lease string, lasts time.Duration) {
	if _, err := n.ledger.Claim(w.clock(), seeker.id, lease); err != nil {
		return // it came too late
	}
	w.seat(n, lease, lasts)
	if w.feedback {
		w.watchDelivery(seeker, n, lasts)
	}
}

// rivalView tries one node after another. A centre is half a mean round trip
// away, and so is everybody else.
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
