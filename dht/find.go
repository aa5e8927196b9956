package dht

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/place"
	"weir/dht/vivaldi"
)

const (
	asksFirst = holder.AsksFirst // holders asked at once

	maxRules = 64 // that an answer may name
)

// abandoned is said of a node whose answer came after others had sufficed.
const abandoned = "abandoned"

// Answer is what holders said to a query.
type Answer struct {
	// Candidates are verified, the newest record of each node.
	Candidates []policy.Candidate `json:"-"`
	// Held and Rejected, by rule, are from the holder that holds most: its
	// word only.
	Held     int            `json:"held"`
	Rejected map[string]int `json:"rejected,omitempty"`
	// Hearing says on whose word it rests that there is no more. An answer without
	// candidates is one only if it is enough.
	Hearing Hearing `json:"hearing"`
	// Asked lists the holders in the order they were asked, this node itself
	// first where it is one.
	Asked    []Asked       `json:"asked"`
	Elapsed  time.Duration `json:"-"`
	Messages int           `json:"messages"` // frames, both ways
	Bytes    int64         `json:"bytes"`    // frames and protocol negotiation, both ways
}

// Asked is one holder's part in an answer.
type Asked struct {
	Holder  peer.ID       `json:"holder"`
	Elapsed time.Duration `json:"-"`
	Millis  float64       `json:"elapsed_ms"`
	Records int           `json:"records"`       // good ones
	Err     string        `json:"err,omitempty"` // why it does not count
}

// Find asks the holders of topic for records that meet need, those of the
// nodes in exclude left out.
//
// Of the holders, the two nearest are asked at the same time; one that is slow,
// fails or knows nothing gets a rival, and the first good answer counts, with
// what another adds within some milliseconds. A node that is a holder itself
// adds what it holds; in a network so small that everyone is, and once it has
// been in it for a TTL, it asks nobody.
//
// The error is an [*Unanswered] if nothing was found and too few holders have
// answered to say that there is nothing, or is ctx's. An answer may be empty
// without an error: then they have said so, most of them of a stream, and two of
// capacity.
func (n *Node) Find(ctx context.Context, topic Topic, need capacity.Need, exclude []peer.ID) (Answer, error) {
	return n.find(ctx, &query{topic: topic, need: need, exclude: exclude, limit: queryLimit})
}

// find runs q, of which what to find is filled in.
func (n *Node) find(ctx context.Context, q *query) (Answer, error) {
	start := time.Now()
	if err := q.topic.CheckAsked(); err != nil {
		return Answer{}, err
	}
	ctx, span := tracing.Start(ctx, n.tracer, "find", trace.SpanKindInternal)
	defer span.End()
	q.trace = tracing.ToWire(ctx)
	q.begin(n)
	var err error
	each, own := n.dir.Each()
	switch {
	case own:
		err = q.askEveryone(ctx, each)
	case q.topic == CapacityTopic():
		err = q.runWide(ctx)
	default:
		err = q.run(ctx)
	}
	q.answer.Elapsed = time.Since(start)
	if err == nil && q.answer.Held == 0 && len(q.found)+len(q.offers) == 0 && !q.answer.Hearing.Enough() {
		err = &Unanswered{Topic: q.topic, Hearing: q.answer.Hearing}
	}
	if span.IsRecording() {
		span.SetAttributes(tracing.Topic.String(string(q.topic)), tracing.Held.Int(q.answer.Held), tracing.Offered.Int(len(q.found)+len(q.offers)), tracing.Messages.Int(q.answer.Messages))
		if err != nil {
			tracing.Fail(span, errorWord(err))
		}
	}
	return q.result(), err
}

// result is the answer with what was found.
func (q *query) result() Answer {
	a := q.answer
	for _, c := range q.found {
		if heard, ok := q.reports[c.Record.Node]; ok {
			c.Trust = min(c.Trust, heard)
		}
		a.Candidates = append(a.Candidates, c)
	}
	// In a fixed order, so that what is drawn from it depends on the draw only.
	slices.SortFunc(a.Candidates, func(a, b policy.Candidate) int { return cmp.Compare(a.Record.Node, b.Record.Node) })
	return a
}

// A query is one Find under way. It is owned by the goroutine that runs it.
type query struct {
	n       *Node
	topic   Topic
	need    capacity.Need
	exclude []peer.ID
	limit   int    // records per holder
	trace   []byte // of what the search is for; see [tracing.ToWire]
	explain bool   // rejected ones too
	compact bool   // offers will do
	level   int    // of a [place.Search] at which to go on

	near     bool // there are others to turn to; no look-up is worth waiting for
	everyone bool // all listed nodes are asked, each for its own record
	first    int  // holders asked at once; 0: asksFirst
	// elsewhere is closed when another part of the same search has found
	// something: those who are overdue are not waited for any more. Nil: there
	// is none.
	elsewhere <-chan struct{}

	asked  map[peer.ID]bool
	found  map[peer.ID]policy.Candidate
	offers map[peer.ID]offer // if compact
	// reports is how far holders believe in those that they do not in full: of
	// several words the least favourable counts, as with offers.
	reports map[peer.ID]float64
	good    int  // remote holders that answered
	split   bool // one said that the topic's nodes publish elsewhere
	answer  Answer
	err     error // of a part of a wider search
}

func (q *query) begin(n *Node) {
	q.n = n
	q.found = make(map[peer.ID]policy.Candidate)
	q.offers = make(map[peer.ID]offer)
	q.reports = make(map[peer.ID]float64)
	q.answer.Asked = []Asked{}
	q.asked = make(map[peer.ID]bool)
}

// exact reports whether what is in the topic is either there or not.
func (q *query) exact() bool { return place.Exact(q.topic) }

func (q *query) run(ctx context.Context) (err error) {
	h, looked := q.n.dir.Holders(time.Now(), q.topic)
	if h.All {
		_, looked = q.n.dir.Holders(time.Now(), CapacityTopic()) // stands for every topic
	}
	defer func() { q.weighSilence(h) }()
	local := 0
	if h.Self {
		local = q.askSelf()
	}
	if h.All && (len(h.Remote) == 0 && !q.exact() || local > 0 && q.n.settled()) {
		h.Remote = nil // they need not be asked
		return nil
	}
	if q.topic == q.n.sharding.PeerShard() {
		h.Remote = q.n.warm(h.Remote)
	}
	if q.exact() {
		h = q.n.withTheSlow(q.topic, h)
	}
	if len(h.Remote) > 0 {
		if err := q.askRemote(ctx, q.n.nearestFirst(h.Remote), q.lacking(h)); err != nil {
			return err
		}
	}
	// The network is searched for other holders only if there is nothing to
	// lose by it: nobody is known, or nobody knows of the stream, or of who starts servers.
	lost := q.good == 0 && !h.Self && !q.near
	unknown := q.answer.Held == 0 && q.exact()
	if (lost || unknown && !(h.All && looked)) && q.n.cache.Begin(time.Now(), q.topic) {
		q.n.lookUps.Now(ctx, q.topic)
		if h, _ = q.n.dir.Holders(time.Now(), q.topic); q.exact() {
			h = q.n.withTheSlow(q.topic, h)
		}
		var fresh []peer.ID
		for _, p := range h.Remote {
			if !q.asked[p] {
				fresh = append(fresh, p)
			}
		}
		if len(fresh) > 0 {
			if err := q.askRemote(ctx, q.n.nearestFirst(fresh), q.lacking(h)); err != nil {
				return err
			}
		}
	}
	if q.good == 0 && !h.Self {
		q.weighSilence(h)
		return &Unanswered{Topic: q.topic, Hearing: q.answer.Hearing}
	}
	return nil
}

// withTheSlow adds to topic's holders those that do not answer, until no record
// that only they may hold is valid any more: what they know nobody else may say
// does not exist. Where names are given, see Voters of [directory.Directory],
// silent nodes of small networks are waited for less long, since there the
// publisher itself answers.
func (n *Node) withTheSlow(topic Topic, h directory.Holders) directory.Holders {
	h.Remote = slices.Clone(h.Remote)
	for _, p := range n.dir.MayHold(time.Now(), topic) {
		if p != n.ID() && !slices.Contains(h.Remote, p) {
			h.Remote = append(h.Remote, p)
		}
	}
	return h
}

// hearing is on whose word among h's holders the answer rests, of which so many
// have to be heard.
func (q *query) hearing(h directory.Holders, must int) Hearing {
	heard := h.Count() - len(h.Remote) // oneself
	var silent []Silence
	for _, p := range h.Remote {
		i := slices.IndexFunc(q.answer.Asked, func(a Asked) bool { return a.Holder == p && a.Err == "" })
		if i >= 0 {
			heard++
		} else if i = slices.IndexFunc(q.answer.Asked, func(a Asked) bool { return a.Holder == p }); i >= 0 {
			silent = append(silent, Silence{Node: p, Err: q.answer.Asked[i].Err})
		}
	}
	return place.Hear(h.Count(), heard, must, silent)
}

// lacking is how many more of h's holders have to answer that they know of
// nothing.
func (q *query) lacking(h directory.Holders) int {
	return q.hearing(h, place.Quorum(q.topic, h.Count())).Lacking
}

// weighSilence notes on whose word the answer rests. Who was not waited for,
// since others had answered, was not silent.
func (q *query) weighSilence(h directory.Holders) {
	q.answer.Hearing = q.hearing(h, place.Quorum(q.topic, h.Count()))
	if q.answer.Hearing.Lacking == 0 {
		q.answer.Hearing.Silent = slices.DeleteFunc(q.answer.Hearing.Silent, func(s Silence) bool { return s.Err == abandoned })
	}
}

// warm returns those of peers that are connected and whose round trip is known,
// and sees to it, a few at a time, that others are, too, next time.
func (n *Node) warm(peers []peer.ID) (ready []peer.ID) {
	const most = 2
	warming := 0
	for _, p := range peers {
		switch {
		case n.peers.Connected(p) && n.peers.Live.RTT(p) > 0:
			ready = append(ready, p)
		case warming < most && n.cache.Meets(time.Now(), p):
			warming++
			n.overlay.Go(func() {
				n.peers.Locate(n.overlay.Context(), p)
				if _, err := n.fetch(n.overlay.Context(), p, "", 0); err != nil && n.overlay.Context().Err() == nil {
					n.log.Debug("round trip not measured", "peer", p, "err", err)
				}
			})
		}
	}
	return ready
}

// nearestFirst orders holders as [place.NearestFirst] does.
func (n *Node) nearestFirst(peers []peer.ID) []peer.ID {
	return place.NearestFirst(peers, n.peers.Live.RTT, n.peers.Live.Suspect)
}

// me is this node as the policy sees it.
func (n *Node) me(region string) capacity.Record {
	me, ok := n.publisher.Own()
	if !ok {
		me = capacity.Record{Node: n.ID(), Region: region}
	}
	me.Coordinate = n.overlay.Coords.Here()
	return me
}

// askSelf adds what this node holds and returns how many records of others
// that is, whether they fit or not.
func (q *query) askSelf() (others int) {
	start := time.Now()
	me := q.n.me(q.need.Region)
	var held, picked int
	var rejected map[string]int
	if q.compact {
		var offers []offer
		offers, held, rejected = q.n.offers(q.topic, q.need, me, q.exclude, queryLimit)
		for _, o := range offers {
			q.offered(start, o)
		}
		picked = len(offers)
	} else {
		var candidates []policy.Candidate
		candidates, held, rejected = q.n.sampleHeld(q.topic, q.need, me, q.exclude, queryLimit, q.explain)
		for _, c := range candidates {
			q.add(c.Record, c.Sealed)
			q.report(c.Record.Node, c.Trust)
		}
		picked = len(candidates)
	}
	q.answer.Held, q.answer.Rejected = held, rejected
	_, q.split = q.n.table.Count(start, q.topic, q.n.sharding.Quorum())
	q.answer.Asked = append(q.answer.Asked, Asked{
		Holder:  q.n.ID(),
		Elapsed: time.Since(start),
		Millis:  millis(time.Since(start)),
		Records: picked,
	})
	if q.n.table.Get(start, q.topic, q.n.ID()) != nil {
		held--
	}
	return held
}

// add keeps the newest record seen of r's node.
func (q *query) add(r capacity.Record, sealed []byte) {
	now := time.Now()
	r, sealed, ok := q.n.newest.see(now, r, sealed)
	if !ok || slices.Contains(q.exclude, r.Node) {
		return
	}
	q.found[r.Node] = policy.Candidate{
		Record: r,
		Sealed: sealed,
		RTT:    q.n.overlay.Coords.Predict(r.Coordinate),
		Trust:  q.n.beliefs.Of(now, r.Node),
	}
}

// report notes how far a holder believes in node.
func (q *query) report(node peer.ID, belief float64) {
	if heard, ok := q.reports[node]; belief < 1 && (!ok || belief < heard) {
		q.reports[node] = belief
	}
}

// reply is one remote holder's answer, verified.
type reply struct {
	index   int // in answer.Asked
	holder  peer.ID
	records []verified
	offers  []offer
	doubts  []holder.Doubt
	query   *pb.QueryReply
	elapsed time.Duration
	spent   overlay.Cost
	err     error
}

type verified struct {
	record capacity.Record
	sealed []byte
}

// askRemote asks peers, in this order, until enough has come in: something, or
// from so many as are lacking that there is nothing.
func (q *query) askRemote(ctx context.Context, peers []peer.ID, lacking int) error {
	return q.ask(ctx, &place.Query{Holders: peers, Patience: q.n.patience, First: q.first, Lacking: lacking, Near: q.near}, len(peers))
}

// An asking decides whom to ask: a [place.Query], or a [place.Poll].
type asking interface {
	Start(now time.Time) place.QueryStep
	Answered(now time.Time, p peer.ID, found bool) place.QueryStep
	Failed(p peer.ID) place.QueryStep
	FoundElsewhere() place.QueryStep
	Tick(now time.Time) place.QueryStep
	Pending() int
}

// ask carries out what asking decides, of most peers at most. The answers of
// those that were too slow are not waited for.
func (q *query) ask(ctx context.Context, asking asking, most int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // resets the streams of those too slow
	replies := make(chan reply, most)
	elsewhere := q.elsewhere
	defer func() { q.charge(asking.Pending()) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for step := asking.Start(time.Now()); ; {
		for _, p := range step.Overdue {
			q.n.peers.Failed(p, overlay.ErrLate)
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
	q.answer.Asked = append(q.answer.Asked, Asked{Holder: p, Err: abandoned})
	if !q.n.overlay.Go(func() { replies <- q.n.query(ctx, index, p, q) }) {
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

// charge counts the requests of those whose answer was not waited for: what
// was sent was sent.
func (q *query) charge(pending int) {
	if pending == 0 {
		return
	}
	req := q.n.queryRequest(q)
	req.Trace = q.trace
	spent := overlay.CostOf(q.n.records, req)
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
	a.Elapsed, a.Millis, a.Records, a.Err = r.elapsed, millis(r.elapsed), len(r.records)+len(r.offers), ""
	if r.err != nil {
		a.Err = r.err.Error()
		return
	}
	q.good++
	q.split = q.split || r.query.Split
	for _, v := range r.records {
		q.add(v.record, v.sealed)
	}
	for _, d := range r.doubts {
		q.report(d.Node, d.Belief)
		for i := range r.offers {
			if r.offers[i].Record.Node == d.Node {
				r.offers[i].Trust = d.Belief // its score tells already
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
	case q.everyone: // each tells of itself
		a.count(held, rejected)
	case held > a.Held || len(a.Rejected) == 0:
		a.Held = max(held, a.Held)
		if len(rejected) > 0 {
			a.Rejected = rejected
		}
	}
}

// count adds to what was held and rejected.
func (a *Answer) count(held int, rejected map[string]int) {
	a.Held += held
	a.Rejected = sumCounts(a.Rejected, rejected)
}

// sumCounts adds more to counts, which may be nil, and returns it.
func sumCounts(counts, more map[string]int) map[string]int {
	if counts == nil && len(more) > 0 {
		counts = make(map[string]int)
	}
	for word, n := range more {
		counts[word] += n
	}
	return counts
}

func (n *Node) queryRequest(q *query) *pb.Request {
	query := &pb.Query{
		Topic:   string(q.topic),
		Need:    signed.NeedToWire(q.need),
		Origin:  vivaldi.ToWire(n.overlay.Coords.Here()),
		Limit:   uint32(q.limit),
		Policy:  n.cfg.Policy().Policy().Version,
		Explain: q.explain,
		Sealed:  !q.compact,
	}
	for _, p := range q.exclude[:min(len(q.exclude), maxExclude)] {
		query.Exclude = append(query.Exclude, []byte(p))
	}
	// Who is asked for its own record only is not told what others think of it.
	if topic := q.topic; !n.cfg.Discovery.Own() && topic != holder.RegionsTopic && !topic.Provisions() {
		for _, d := range n.beliefs.Doubts(time.Now()) {
			query.Doubts = append(query.Doubts, doubtToWire(d))
		}
	}
	return &pb.Request{Op: &pb.Request_Query{Query: query}}
}

// query asks one holder, within its own deadline, and verifies what it says. A
// holder that sends anything but good records of the topic, or offers where
// those will do, has none of them used.
func (n *Node) query(ctx context.Context, index int, p peer.ID, q *query) reply {
	start := time.Now()
	r := reply{index: index, holder: p}
	ctx, cancel := context.WithTimeout(ctx, n.peers.Deadline(p))
	defer cancel()
	var resp pb.Response
	var rtt time.Duration
	rtt, r.spent, r.err = n.overlay.Call(ctx, p, n.records, n.queryRequest(q), &resp, maxQueryReply)
	r.elapsed = time.Since(start)
	if r.err != nil {
		n.peers.Failed(p, r.err)
		return r
	}
	r.query = resp.GetQuery()
	switch {
	case resp.Error != "":
		r.err = holderError(&resp)
	case r.query == nil:
		r.err = errors.New("holder answered something else")
	case len(r.query.Sealed)+len(r.query.Digests) > queryLimit:
		r.err = fmt.Errorf("holder sent %d records, at most %d were asked for", len(r.query.Sealed)+len(r.query.Digests), queryLimit)
	case len(r.query.Digests) > 0 && !q.compact:
		r.err = errors.New("holder sent digests where records were asked for")
	default:
		now := time.Now()
		var nowhere int
		r.records, nowhere, r.err = verify(n.wall(now), q.topic, r.query.Sealed)
		if nowhere > 0 {
			r.query.Rejected = append([]*pb.Rejected{{Rule: nowhereRule, Count: uint32(nowhere)}}, r.query.Rejected...)
		}
		if r.err == nil {
			r.offers, r.err = digests(now, p, n.cfg.Policy().Policy(), r.query.Digests)
		}
		if r.err == nil {
			r.doubts, r.err = doubtsFromWire(r.query.Doubts, queryLimit)
		}
	}
	if r.err != nil {
		n.log.DebugContext(ctx, "holder's answer not used", "peer", p, "topic", q.topic, "err", r.err)
		n.peers.Failed(p, r.err)
		return r
	}
	n.peers.Answered(p, rtt)
	return r
}

// nowhereRule is by which records are rejected that tell no address in
// particular. It is the name that the built-in policy has for records without one.
const nowhereRule = "url"

// verify opens what a holder sent. Records that ran out on the way are left
// out, and so are, counted, those that tell no address in particular, which
// older nodes make and hold; one that is forged or does not belong in topic
// spoils them all, for no honest holder keeps such.
func verify(now time.Time, topic Topic, sealed [][]byte) (records []verified, nowhere int, err error) {
	for _, b := range sealed {
		r, err := signed.OpenRecord(b, now)
		if errors.Is(err, capacity.ErrExpired) || errors.Is(err, capacity.ErrFromFuture) {
			continue // clocks differ
		}
		if errors.Is(err, capacity.ErrNowhere) {
			nowhere++
			continue
		}
		if err == nil {
			err = topic.Fits(&r)
		}
		if err != nil {
			return nil, 0, err
		}
		records = append(records, verified{r, b})
	}
	return records, nowhere, nil
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// askEveryone asks each listed node for its own record.
func (q *query) askEveryone(ctx context.Context, each []peer.ID) error {
	n, start := q.n, time.Now()
	q.everyone = true
	if n.self() != "" {
		q.askSelf()
	}
	peers := slices.DeleteFunc(slices.Clone(each), func(p peer.ID) bool {
		return p == n.ID() || slices.Contains(q.exclude, p) || n.peers.Live.Down(start, p)
	})
	err := q.ask(ctx, &place.Poll{Nodes: peers}, len(peers))
	// Each knows of itself only: of those that are not gone all have to answer.
	all := directory.Holders{Self: n.self() != ""}
	for _, p := range each {
		if p != n.ID() && !slices.Contains(q.exclude, p) && !n.peers.Live.Unreachable(start, p) {
			all.Remote = append(all.Remote, p)
		}
	}
	q.answer.Hearing = q.hearing(all, all.Count())
	switch {
	case err != nil:
		return err
	case q.good == 0 && len(peers) > 0:
		return &Unanswered{Topic: q.topic, Hearing: q.answer.Hearing}
	}
	return nil
}
