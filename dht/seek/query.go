package seek

import (
	"context"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/overlay"
	"weir/dht/place"
)

// A query is one Find in progress. It belongs to the goroutine that runs it.
type query struct {
	s       *Seeker
	topic   holder.Topic
	need    capacity.Need
	exclude []peer.ID
	limit   int    // records per holder
	trace   []byte // of the request that the search serves; see [tracing.ToWire]
	explain bool   // include rejected records
	compact bool   // offers suffice
	level   int    // of a [place.Search], at which to go on

	near     bool // there are other topics to ask; no look-up is worth waiting for
	everyone bool // all listed nodes are asked, each for its own record
	first    int  // holders asked at once; 0: asksFirst
	// elsewhere is closed when another part of the same search has found
	// something: overdue holders are not waited for any more. Nil: there is no
	// other part.
	elsewhere <-chan struct{}

	asked  map[peer.ID]bool
	found  map[peer.ID]policy.Candidate
	offers map[peer.ID]offer // if compact
	// reports is the holders' trust in nodes that they do not trust fully: of
	// several reports the least favourable counts, as with offers.
	reports map[peer.ID]float64
	good    int  // remote holders that answered
	split   bool // a holder said that the topic's nodes publish elsewhere
	answer  Answer
	err     error // of a part of a wider search
}

func (q *query) begin(s *Seeker) {
	q.s = s
	q.found = make(map[peer.ID]policy.Candidate)
	q.offers = make(map[peer.ID]offer)
	q.reports = make(map[peer.ID]float64)
	q.answer.Asked = []Asked{}
	q.asked = make(map[peer.ID]bool)
}

// run asks the holders of one topic, and looks for others if necessary.
func (q *query) run(ctx context.Context) error {
	s := q.s
	h, looked := q.holders()
	if h.All {
		_, looked = s.cfg.Directory.Holders(time.Now(), holder.CapacityTopic()) // stands for every topic
	}
	defer func() { q.weighSilence(h) }()
	k := place.Knowledge{Topic: q.topic, Self: h.Self, Everyone: h.All, LookedUp: looked, Others: len(h.Remote), Near: q.near, WarmedUp: s.cfg.WarmedUp()}
	if h.Self {
		k.Own = q.askSelf()
	}
	if k.OwnWillDo() {
		h.Remote = nil // no need to ask them
		return nil
	}
	if q.topic == s.cfg.Sharding.PeerShard() {
		h.Remote = s.warm(h.Remote)
	}
	if err := q.askHolders(ctx, h); err != nil {
		return err
	}
	k.Answers, k.Held = q.good, q.answer.Held
	if k.LookUp() && s.cfg.Cache.Begin(time.Now(), q.topic) {
		s.cfg.LookUps.Now(ctx, q.topic)
		h, _ = q.holders()
		if err := q.askHolders(ctx, h); err != nil {
			return err
		}
	}
	if k.Answers, k.Self = q.good, h.Self; k.Nothing() {
		q.weighSilence(h)
		return &place.Unanswered{Topic: q.topic, Hearing: q.answer.Hearing}
	}
	return nil
}

// holders returns the topic's holders, and whether they have been looked up.
// Silent holders count where there are too few others for an answer that rests
// on two: the node that is left alone may have what nobody else has.
func (q *query) holders() (h directory.Holders, looked bool) {
	h, looked = q.s.cfg.Directory.Holders(time.Now(), q.topic)
	if place.Exact(q.topic) || h.Count() < holder.QueryFirst {
		h = q.s.WithTheSlow(q.topic, h)
	}
	return h, looked
}

// askHolders asks those of h that were not asked yet, the nearest first. Those
// that are left alone are asked only about what either exists or does not: of
// capacity there is more, and a placement does not wait for them.
func (q *query) askHolders(ctx context.Context, h directory.Holders) error {
	fresh := slices.DeleteFunc(slices.Clone(h.Remote), func(p peer.ID) bool {
		return q.asked[p] || !place.Exact(q.topic) && q.s.cfg.Live.Down(time.Now(), p)
	})
	if len(fresh) == 0 {
		return nil
	}
	return q.askRemote(ctx, q.s.NearestFirst(fresh), q.lacking(h))
}

// WithTheSlow adds silent holders to topic's holders, until every record that
// only they may hold has expired: before that, no other holder can rule out
// that such a record exists. For the claim of a name, see Voters of
// [directory.Directory], silent nodes of small networks are waited for less
// long, since there the publisher itself answers.
func (s *Seeker) WithTheSlow(topic holder.Topic, h directory.Holders) directory.Holders {
	h.Remote = slices.Clone(h.Remote)
	for _, p := range s.cfg.Directory.MayHold(time.Now(), topic) {
		if p != s.cfg.ID && !slices.Contains(h.Remote, p) {
			h.Remote = append(h.Remote, p)
		}
	}
	return h
}

// leftAlone is why a holder is silent that was not asked, since it failed a
// moment ago.
const leftAlone = "left alone since it failed"

// hearing is the count of h's holders that were heard or silent, of which must
// are required.
func (q *query) hearing(h directory.Holders, must int) place.Hearing {
	heard := h.Count() - len(h.Remote) // this node itself
	var silent []place.Silence
	for _, p := range h.Remote {
		i := slices.IndexFunc(q.answer.Asked, func(a Asked) bool { return a.Holder == p && a.Err == "" })
		if i >= 0 {
			heard++
		} else if i = slices.IndexFunc(q.answer.Asked, func(a Asked) bool { return a.Holder == p }); i >= 0 {
			silent = append(silent, place.Silence{Node: p, Err: q.answer.Asked[i].Err})
		} else if q.s.cfg.Live.Down(time.Now(), p) {
			silent = append(silent, place.Silence{Node: p, Err: leftAlone})
		}
	}
	return place.Hear(h.Count(), heard, must, silent)
}

// lacking is how many more of h's holders have to answer that they hold
// nothing.
func (q *query) lacking(h directory.Holders) int {
	return q.hearing(h, place.Quorum(q.topic, h.Count())).Lacking
}

// weighSilence notes which holders the answer rests on.
func (q *query) weighSilence(h directory.Holders) {
	q.answer.Hearing = q.hearing(h, place.Quorum(q.topic, h.Count()))
}

// warm returns those of peers that are connected and have a measured round
// trip, and connects to and measures a few of the others for next time.
func (s *Seeker) warm(peers []peer.ID) (ready []peer.ID) {
	const most = 2
	warming := 0
	for _, p := range peers {
		switch {
		case s.cfg.Peers.Connected(p) && s.cfg.Live.RTT(p) > 0:
			ready = append(ready, p)
		case warming < most && s.cfg.Cache.Meets(time.Now(), p):
			warming++
			s.cfg.Overlay.Go(func() {
				s.cfg.Peers.Locate(s.cfg.Overlay.Context(), p)
				if err := s.cfg.Measure(s.cfg.Overlay.Context(), p); err != nil && s.cfg.Overlay.Context().Err() == nil {
					s.cfg.Log.Debug("round trip not measured", "peer", p, "err", err)
				}
			})
		}
	}
	return ready
}

// NearestFirst orders holders as [place.NearestFirst] does.
func (s *Seeker) NearestFirst(peers []peer.ID) []peer.ID {
	return place.NearestFirst(peers, s.cfg.Live.RTT, s.cfg.Live.Suspect)
}

// askSelf adds this node's own table and returns how many records of others it
// holds, whether they fit or not.
func (q *query) askSelf() (others int) {
	start := time.Now()
	me := q.s.Me(q.need.Region)
	var held, picked int
	var rejected map[string]int
	if q.compact {
		var offers []offer
		offers, held, rejected = q.s.cfg.Holding.Offers(time.Now(), q.topic, q.need, me, q.exclude, holding.QueryLimit)
		for _, o := range offers {
			q.offered(start, o)
		}
		picked = len(offers)
	} else {
		var candidates []policy.Candidate
		candidates, held, rejected = q.s.cfg.Holding.Sample(time.Now(), q.topic, q.need, me, q.exclude, holding.QueryLimit, q.explain)
		for _, c := range candidates {
			q.add(c.Record, c.Sealed)
			q.report(c.Record.Node, c.Trust)
		}
		picked = len(candidates)
	}
	q.answer.Held, q.answer.Rejected = held, rejected
	_, q.split = q.s.cfg.Table.Count(start, q.topic, q.s.cfg.Sharding.Quorum())
	if mean, ok := q.s.cfg.Table.MeanStress(start, q.topic); ok {
		q.s.Regions.heard(start, q.topic, mean)
	}
	q.answer.Asked = append(q.answer.Asked, Asked{
		Holder:  q.s.cfg.ID,
		Elapsed: time.Since(start),
		Millis:  capacity.Milliseconds(time.Since(start)),
		Records: picked,
	})
	if q.s.cfg.Table.Get(start, q.topic, q.s.cfg.ID) != nil {
		held--
	}
	return held
}

// add keeps the newest record seen of r's node.
func (q *query) add(r capacity.Record, sealed []byte) {
	now := time.Now()
	r, sealed, ok := q.s.cfg.Newest.See(now, r, sealed)
	if !ok || slices.Contains(q.exclude, r.Node) {
		return
	}
	q.found[r.Node] = policy.Candidate{
		Record: r,
		Sealed: sealed,
		RTT:    q.s.cfg.Coordinates.Predict(r.Coordinate),
		Trust:  q.s.cfg.Reputation.Of(now, r.Node),
	}
}

// report notes a holder's trust in node.
func (q *query) report(node peer.ID, trust float64) {
	if heard, ok := q.reports[node]; trust < 1 && (!ok || trust < heard) {
		q.reports[node] = trust
	}
}

// askRemote asks peers, in this order, until enough answers have come: one with
// a record, or as many empty ones as are lacking.
func (q *query) askRemote(ctx context.Context, peers []peer.ID, lacking int) error {
	return q.ask(ctx, &place.Query{Holders: peers, Patience: q.s.patience, First: q.first, Lacking: lacking, Near: q.near}, len(peers))
}

// An asking decides which holders to ask: a [place.Query], or a [place.Poll].
type asking interface {
	Start(now time.Time) place.QueryStep
	Answered(now time.Time, p peer.ID, found bool) place.QueryStep
	Failed(p peer.ID) place.QueryStep
	FoundElsewhere() place.QueryStep
	Tick(now time.Time) place.QueryStep
	Pending() int
}

// ask carries out the decisions of asking, for most peers at most. It does not
// wait for answers that are too slow.
func (q *query) ask(ctx context.Context, asking asking, most int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // resets the streams that are too slow
	replies := make(chan reply, most)
	elsewhere := q.elsewhere
	defer func() { q.charge(asking.Pending()) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for step := asking.Start(time.Now()); ; {
		for _, p := range step.Overdue {
			q.s.cfg.Peers.Failed(p, overlay.ErrLate)
		}
		for _, p := range step.Ask {
			q.send(ctx, p, replies)
		}
		if step.Done {
			return nil
		}
		await(timer, step.Due)
		select {
		case r := <-replies:
			if q.take(r); r.err != nil {
				step = asking.Failed(r.holder)
			} else {
				step = asking.Answered(time.Now(), r.holder, len(q.found)+len(q.offers) > 0)
			}
		case <-timer.C:
			step = asking.Tick(time.Now())
		case <-elsewhere:
			elsewhere = nil
			step = asking.FoundElsewhere()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send asks p in the background.
func (q *query) send(ctx context.Context, p peer.ID, replies chan<- reply) {
	q.asked[p] = true
	index := len(q.answer.Asked)
	q.answer.Asked = append(q.answer.Asked, Asked{Holder: p, Err: place.Abandoned})
	if !q.s.cfg.Overlay.Go(func() { replies <- q.s.askHolder(ctx, index, p, q) }) {
		replies <- reply{index: index, holder: p, err: context.Canceled}
	}
}

// await sets timer to due; zero: never.
func await(timer *time.Timer, due time.Time) {
	if due.IsZero() {
		timer.Stop()
	} else {
		timer.Reset(time.Until(due))
	}
}

// charge counts the requests whose answer was not waited for: their cost was
// spent.
func (q *query) charge(pending int) {
	if pending == 0 {
		return
	}
	req := q.s.queryRequest(q)
	req.Trace = q.trace
	spent := overlay.CostOf(q.s.cfg.Records, req)
	for range pending {
		q.answer.Messages += spent.Messages
		q.answer.Bytes += spent.Bytes
	}
}

// take notes one reply and adds its records.
func (q *query) take(r reply) {
	q.answer.Messages += r.spent.Messages
	q.answer.Bytes += r.spent.Bytes
	a := &q.answer.Asked[r.index]
	a.Elapsed, a.Millis, a.Records, a.Err = r.elapsed, capacity.Milliseconds(r.elapsed), len(r.records)+len(r.offers), ""
	if r.err != nil {
		a.Err = r.err.Error()
		return
	}
	q.good++
	q.split = q.split || r.query.Split
	q.s.heardLoad(&r, q.topic)
	for _, v := range r.records {
		q.add(v.Record, v.Sealed)
	}
	for _, d := range r.reports {
		q.report(d.Node, d.Trust)
		for i := range r.offers {
			if r.offers[i].Record.Node == d.Node {
				r.offers[i].Trust = d.Trust // its score includes it already
			}
		}
	}
	for _, o := range r.offers {
		q.offered(time.Now(), o)
	}
	rejected := make(map[string]int)
	for _, j := range r.query.Rejected[:min(len(r.query.Rejected), maxRules)] {
		rejected[j.Rule] += int(j.Count)
	}
	held := int(r.query.Held)
	switch a := &q.answer; {
	case q.everyone: // each answers for itself
		a.count(held, rejected)
	case held > a.Held || len(a.Rejected) == 0:
		a.Held = max(held, a.Held)
		if len(rejected) > 0 {
			a.Rejected = rejected
		}
	}
}

// askEveryone asks each listed node for its own record.
func (q *query) askEveryone(ctx context.Context, each []peer.ID) error {
	s, start := q.s, time.Now()
	q.everyone = true
	if !s.cfg.Client {
		q.askSelf()
	}
	peers := slices.DeleteFunc(slices.Clone(each), func(p peer.ID) bool {
		return p == s.cfg.ID || slices.Contains(q.exclude, p) || s.cfg.Live.Down(start, p)
	})
	err := q.ask(ctx, &place.Poll{Nodes: peers}, len(peers))
	// Each node holds only its own record: every node that is not gone has to
	// answer.
	all := directory.Holders{Self: !s.cfg.Client}
	for _, p := range each {
		if p != s.cfg.ID && !slices.Contains(q.exclude, p) && !s.cfg.Live.Unreachable(start, p) {
			all.Remote = append(all.Remote, p)
		}
	}
	q.answer.Hearing = q.hearing(all, all.Count())
	switch {
	case err != nil:
		return err
	case q.good == 0 && len(peers) > 0:
		return &place.Unanswered{Topic: q.topic, Hearing: q.answer.Hearing}
	}
	return nil
}
