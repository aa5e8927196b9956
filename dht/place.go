package dht

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/scope"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/place"
)

const (
	reserveFirst = place.ReserveFirst // candidates asked at once
	reserveMost  = place.ReserveMost  // candidates asked in all

	// placeLimit is how many records each holder is asked for: two holders'
	// samples differ, and even one alone offers more than will be tried.
	placeLimit = place.OfferLimit

	// reserveSilence is how long the last ones have at least before others are
	// looked for further away.
	reserveSilence = 250 * time.Millisecond
	// reserveTime bounds one reservation, a dial included.
	reserveTime = time.Second
	releaseTime = 2 * time.Second

	placeRetry = 2 * time.Second // when to come again after everyone refused
)

// NoCandidates is the reason of a refusal for which no rule can be blamed.
const NoCandidates = "no-candidates"

// NotKnown is why nobody was chosen if those who had to know have not answered.
const NotKnown = "not-known"

// Unreachable is why a candidate was not taken that did not answer: whether it has
// room is not known.
const Unreachable = "unreachable"

// Placed is where to go, and the room kept there.
type Placed struct {
	Candidate policy.Candidate
	Lease     capacity.Lease
}

// Decision is how a placement came about: everything that was known, who was
// turned down and why, what it took. Messages and bytes are those up to the
// decision; answers that come later, and the release of a lease that was not
// needed, show in [Node.Traffic] only.
type Decision struct {
	Topic        Topic         `json:"topic"`
	Need         DecisionNeed  `json:"need"`
	Policy       uint64        `json:"policy"` // version applied
	Time         time.Time     `json:"time"`
	Answer                     // what the holders said
	Verdicts     []Judged      `json:"verdicts"` // passed first, best first
	Reservations []Reservation `json:"reservations"`
	Chosen       peer.ID       `json:"chosen,omitempty"`
	Refused      string        `json:"refused,omitempty"` // why nobody was chosen

	rejected map[string]int // of the candidates, by rule

	FindMillis    float64 `json:"find_ms"`
	ReserveMillis float64 `json:"reserve_ms"`
	TotalMillis   float64 `json:"total_ms"`
}

// DecisionNeed is a capacity.Need as a Decision shows it.
type DecisionNeed struct {
	Purpose capacity.Purpose `json:"purpose"`
	Stream  string           `json:"stream,omitempty"`
	Uplink  int64            `json:"uplink"`
	Packets int64            `json:"packets"`
	Region  string           `json:"region,omitempty"`
}

// Judged is one candidate as the policy saw it. If it was only told of, a
// holder applied the policy, and Name, URL and Region are known of the chosen one
// alone, whose record came with its lease.
type Judged struct {
	Node     peer.ID            `json:"node"`
	Name     string             `json:"name,omitempty"` // its own claim
	Seq      uint64             `json:"seq"`
	Told     bool               `json:"told,omitempty"` // by a digest
	URL      string             `json:"url"`
	Region   string             `json:"region,omitempty"`
	Rule     string             `json:"rule,omitempty"` // the one that rejected it
	Score    float64            `json:"score"`
	Terms    []policy.TermScore `json:"terms"`
	Stress   float64            `json:"stress"`
	Headroom *int64             `json:"headroom,omitempty"` // bit/s of uplink to spare; nil: no limit
	Trust    float64            `json:"trust"`              // 0…1: by what it refused or fell short of, here or by what holders heard
	RTT      float64            `json:"rtt_ms"`             // predicted; 0: unknown
	Age      float64            `json:"age_ms"`             // since issued, by both clocks
}

// Reservation is one candidate's answer.
type Reservation struct {
	Node    peer.ID `json:"node"`
	Lease   string  `json:"lease,omitempty"`  // its ID; granted
	Reason  string  `json:"reason,omitempty"` // refused, failed, or abandoned
	Detail  string  `json:"detail,omitempty"`
	Elapsed float64 `json:"elapsed_ms"`
}

// Explain is Place without the reservation: who would be asked, and why.
func (n *Node) Explain(ctx context.Context, topic Topic, need capacity.Need, exclude []peer.ID) (Decision, error) {
	d, passed, err := n.decide(ctx, &finding{topic: topic, need: need, exclude: exclude, limit: queryLimit, explain: true})
	if err == nil && len(passed) > 0 {
		d.Chosen = passed[0].Record.Node
	} else if err == nil {
		d.Refused = d.refusal().Reason
	}
	d.TotalMillis = millis(time.Since(d.Time))
	return d, err
}

// Place finds a node for need and has it reserve room. It asks two of the best
// at once and then others, up to six, each within its own deadline; the better
// lease is used and every other released, also one that comes late. The lease
// lives as long as capacity.LeaseTime from when the target gave it.
//
// The error is a *capacity.Refusal if nobody has room: its reason is what most
// candidates gave, or NoCandidates. Others are those of Find.
func (n *Node) Place(ctx context.Context, topic Topic, need capacity.Need, exclude []peer.ID) (placed Placed, d Decision, err error) {
	ctx, span := n.placing(ctx, topic, need)
	defer func() { d.placed(span, err) }()
	q := &finding{topic: topic, need: need, exclude: exclude, limit: placeLimit, compact: true}
	d, passed, err := n.decide(ctx, q)
	if err != nil {
		return Placed{}, d, err
	}
	race := n.newRace(ctx, need, &d)
	defer race.end()
	placed, err = n.take(ctx, race, passed)
	// Those near by have all refused, each by its own ledger, or do not answer:
	// look further, unless there is no further: where a list says whom to ask,
	// all were. If the last of all were dead, those near by that nobody offered
	// come next.
	level, again := q.level, false
	for isRefusal(err) && topic == CapacityTopic() && !n.cfg.Discovery.Listed() && ctx.Err() == nil && len(d.Reservations) > 0 {
		if level >= place.Levels {
			if again || d.Refused != Unreachable {
				break
			}
			level, again = 0, true
		}
		tried := slices.Clone(exclude)
		for _, r := range d.Reservations {
			tried = append(tried, r.Node)
		}
		q = &finding{topic: topic, need: need, exclude: tried, limit: placeLimit, compact: true, level: level}
		further, more, decideErr := n.decide(ctx, q)
		d.extend(further)
		level = q.level
		if decideErr != nil || len(more) == 0 && len(race.results) == 0 {
			continue // nobody there; the refusal stands
		}
		placed, err = n.settle(ctx, race, n.picks(more), false)
	}
	if isRefusal(err) && len(race.waiting) > 0 { // there is nobody else
		placed, err = n.settle(ctx, race, nil, true)
	}
	d.TotalMillis = millis(time.Since(d.Time))
	return placed, d, err
}

// PlaceAmong is Place among nodes whose sealed records are at hand, however they
// came here. Records that do not verify are left out.
func (n *Node) PlaceAmong(ctx context.Context, topic Topic, need capacity.Need, sealed [][]byte, exclude []peer.ID) (placed Placed, d Decision, err error) {
	ctx, span := n.placing(ctx, topic, need)
	defer func() { d.placed(span, err) }()
	q := &finding{topic: topic, need: need, exclude: exclude}
	q.begin(n)
	now := time.Now()
	for _, b := range sealed {
		if records, _, err := verify(n.wall(now), topic, [][]byte{b}); err == nil && len(records) == 1 {
			q.add(records[0].record, b)
		}
	}
	q.answer.Held, q.answer.Elapsed = len(q.found), time.Since(now)
	d, passed := n.weigh(now, q, q.result())
	race := n.newRace(ctx, need, &d)
	defer race.end()
	placed, err = n.take(ctx, race, passed)
	if isRefusal(err) && len(race.waiting) > 0 {
		placed, err = n.settle(ctx, race, nil, true)
	}
	d.TotalMillis = millis(time.Since(now))
	return placed, d, err
}

// take has one of those that passed reserve room.
func (n *Node) take(ctx context.Context, race *race, passed []offer) (Placed, error) {
	picks := n.picks(passed)
	if len(picks) == 0 {
		refusal := race.d.refusal()
		race.d.Refused = refusal.Reason
		return Placed{}, refusal
	}
	return n.settle(ctx, race, picks, false)
}

// settle runs the race on, with picks, and notes what came of it.
func (n *Node) settle(ctx context.Context, race *race, picks []offer, toTheEnd bool) (Placed, error) {
	d, began := race.d, time.Now()
	placed, err := race.run(ctx, picks, toTheEnd)
	d.ReserveMillis += millis(time.Since(began))
	if err != nil {
		var refusal *capacity.Refusal
		if errors.As(err, &refusal) {
			d.Refused = refusal.Reason
		}
		return Placed{}, err
	}
	d.Refused = ""
	d.choose(&placed.Candidate.Record)
	return placed, nil
}

// extend adds what a search further afield found.
func (d *Decision) extend(e Decision) {
	d.count(e.Held, e.Answer.Rejected)
	d.Hearing = d.Hearing.and(e.Hearing)
	d.Asked = append(d.Asked, e.Asked...)
	d.Messages += e.Messages
	d.Bytes += e.Bytes
	d.FindMillis += e.FindMillis
	d.Verdicts = append(d.Verdicts, e.Verdicts...)
	d.rejected = sumCounts(d.rejected, e.rejected)
}

// choose notes that r's node was chosen, and what its record told.
func (d *Decision) choose(r *capacity.Record) {
	d.Chosen = r.Node
	for i := range d.Verdicts {
		if v := &d.Verdicts[i]; v.Node == r.Node {
			v.Name, v.URL, v.Region = r.Name, r.URL, r.Region
		}
	}
}

// decide asks the holders and ranks what they said. To explain takes the
// records themselves, to place what the holders offer will do.
func (n *Node) decide(ctx context.Context, q *finding) (Decision, []offer, error) {
	start := time.Now()
	answer, err := n.find(ctx, q)
	d, passed := n.weigh(start, q, answer)
	if errors.Is(err, ErrUnanswered) {
		d.Refused = NotKnown
	}
	return d, passed, err
}

// weigh ranks what q found.
func (n *Node) weigh(start time.Time, q *finding, answer Answer) (Decision, []offer) {
	judge, need := n.cfg.Judge(), q.need
	d := Decision{
		Topic:        q.topic,
		Need:         DecisionNeed(need),
		Policy:       judge.Policy().Version,
		Time:         start,
		Answer:       answer,
		FindMillis:   millis(answer.Elapsed),
		Reservations: []Reservation{},
		Verdicts:     []Judged{},
	}
	ranking := judge.Rank(need, n.me(need.Region), answer.Candidates)
	now := time.Now()
	passed := n.rankOffers(now, ranking, q.offers)
	all := slices.Clone(passed)
	d.rejected = ranking.RejectedBy()
	for _, v := range ranking.Rejected {
		all = append(all, holder.Judged(v))
	}
	for _, v := range all {
		terms := v.Terms
		if terms == nil {
			terms = []policy.TermScore{}
		}
		var headroom *int64
		if v.Headroom >= 0 {
			headroom = &v.Headroom
		}
		d.Verdicts = append(d.Verdicts, Judged{
			Node:     v.Record.Node,
			Name:     v.Record.Name,
			Seq:      v.Record.Seq,
			URL:      v.Record.URL,
			Region:   v.Record.Region,
			Rule:     v.Rule,
			Score:    v.Score,
			Terms:    terms,
			Stress:   v.Stress,
			Headroom: headroom,
			Told:     v.Told(),
			Trust:    v.Trust,
			RTT:      millis(v.RTT),
			Age:      millis(now.Sub(v.Record.Issued)),
		})
	}
	return d, passed
}

// picks are the candidates to try of those that passed, in order; those that
// owe an answer come last.
func (n *Node) picks(passed []offer) []offer {
	return place.Order(passed, n.cfg.Judge().Policy().Keep, n.reach.Suspect, newRand())
}

// refusal is for when no candidate passed.
func (d *Decision) refusal() *capacity.Refusal {
	rejected := maps.Clone(d.rejected)
	for rule, count := range d.Rejected {
		rejected[rule] = max(rejected[rule], count)
	}
	// That it is oneself says nothing about room.
	delete(rejected, "self")
	reason, count := mostFrequent(rejected)
	if reason == "" {
		return &capacity.Refusal{Reason: NoCandidates, Detail: fmt.Sprintf("no other node has a record in %s", d.Topic), RetryAfter: placeRetry}
	}
	return &capacity.Refusal{
		Reason:     reason,
		Detail:     fmt.Sprintf("no node fits: %d of %d fail on %s", count, max(d.Held, count), reason),
		RetryAfter: placeRetry,
	}
}

// mostFrequent returns the word counted most, the first in the alphabet of
// several.
func mostFrequent(counts map[string]int) (word string, count int) {
	for w, c := range counts {
		if c > count || c == count && c > 0 && w < word {
			word, count = w, c
		}
	}
	return word, count
}

// A race is one placement's reservations. Candidates are asked, two at once,
// until some have room and the better of those is taken; whoever answers after
// that gives its lease back. It is used by one goroutine, but for in.
type race struct {
	n       *Node
	ctx     context.Context // the node's, with the placement's trace
	need    capacity.Need
	request string
	d       *Decision

	tried   int
	waiting map[peer.ID]bool // for whose answers
	leases  []reserved
	reasons map[string]int // why others gave none
	last    error

	results chan reserved // has room for all
	mu      sync.Mutex
	decided bool
}

type reserved struct {
	index   int // in Decision.Reservations
	node    peer.ID
	placed  Placed
	score   float64 // by the policy, of the target as it is now
	elapsed time.Duration
	spent   cost
	err     error
}

// raceMost bounds the candidates asked in one race, over all of its rounds.
const raceMost = (2*place.Levels + 2) * reserveMost

func (n *Node) newRace(ctx context.Context, need capacity.Need, d *Decision) *race {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	return &race{
		n: n, ctx: tracing.Carry(n.ctx, ctx), need: need, request: hex.EncodeToString(id), d: d,
		waiting: make(map[peer.ID]bool), reasons: make(map[string]int), results: make(chan reserved, raceMost),
	}
}

// end decides the race, and has all leases given back that have come and are
// not taken.
func (r *race) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.decided = true
	for len(r.results) > 0 {
		r.leases = append(r.leases, <-r.results)
	}
	for _, res := range r.leases {
		if res.err == nil {
			r.n.start(func() { r.n.release(r.ctx, res.node, r.request) })
		}
	}
}

// in passes res on, or reports that it comes too late.
func (r *race) in(res reserved) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.decided {
		r.results <- res
	}
	return !r.decided
}

// ask has pick reserve room, and returns after which time its answer is
// overdue.
func (r *race) ask(pick offer) time.Duration {
	n, node, index := r.n, pick.Record.Node, len(r.d.Reservations)
	r.d.Reservations = append(r.d.Reservations, Reservation{Node: node, Reason: abandoned})
	r.tried++
	r.waiting[node] = true
	topic := r.d.Topic // r.d is not ours in the background
	ok := n.start(func() {
		res := n.reserveOn(r.ctx, &pick, topic, r.request, r.need)
		res.index = index
		// One that failed may have granted the lease, and the answer got lost.
		if late := !r.in(res); late && res.err == nil || res.err != nil && !isRefusal(res.err) {
			n.release(r.ctx, node, r.request)
		}
	})
	if !ok {
		r.in(reserved{index: index, node: node, err: context.Canceled})
	}
	return place.LeasePatience(n.patience(node), pick.RTT)
}

// heard takes in one answer.
func (r *race) heard(res reserved) {
	delete(r.waiting, res.node)
	note := &r.d.Reservations[res.index]
	note.Elapsed = millis(res.elapsed)
	r.d.Messages += res.spent.messages
	r.d.Bytes += res.spent.bytes
	if res.err == nil {
		note.Lease, note.Reason = res.placed.Lease.ID, ""
		r.leases = append(r.leases, res)
		return
	}
	r.n.beliefs.Refused(time.Now(), res.node)
	var refusal *capacity.Refusal
	var unfit *errUnfit
	switch {
	case errors.As(res.err, &refusal):
		note.Reason, note.Detail = refusal.Reason, refusal.Detail
	case errors.As(res.err, &unfit):
		note.Reason, note.Detail = unfit.rule, res.err.Error()
	case errors.Is(res.err, scope.ErrRefused):
		note.Reason, note.Detail = "address", res.err.Error()
	case errors.Is(res.err, errUnproven):
		note.Reason, note.Detail = "unproven", res.err.Error()
	default:
		note.Reason, note.Detail = Unreachable, res.err.Error()
	}
	r.reasons[note.Reason]++
	r.last = res.err
}

// run asks picks, in order, until one has room. Of those that are asked at the
// same time the better counts, by what they say themselves with their leases:
// what was offered may be as old as the records, and seekers who all take the
// first to answer would fill who is near, whatever the policy says. A second
// lease is waited for no longer than [place.LeaseGrace].
//
// The error is a *capacity.Refusal if nobody has room. Those whose answers are
// overdue then stay in the race, which the next run goes on with, unless this one
// is to the end.
func (r *race) run(ctx context.Context, picks []offer, toTheEnd bool) (Placed, error) {
	n, began := r.n, time.Now()
	for len(r.results) > 0 { // since the run before
		r.heard(<-r.results)
	}
	slowest := time.Duration(0) // round trip, predicted
	var due time.Time           // when the answers are overdue
	ask := func(count int) (asked bool) {
		for ; count > 0 && len(picks) > 0 && r.tried < raceMost; count-- {
			slowest = max(slowest, picks[0].RTT)
			patience := r.ask(picks[0])
			if picks = picks[1:]; len(picks) == 0 {
				patience = max(patience, reserveSilence)
			}
			if at := time.Now().Add(patience); at.After(due) {
				due = at
			}
			asked = true
		}
		return asked
	}
	if len(r.leases) == 0 {
		ask(reserveFirst)
	}
	overdue := time.NewTimer(time.Until(due))
	defer overdue.Stop()
	if toTheEnd {
		overdue.Stop()
	}
	grace := make(<-chan time.Time)
	if len(r.leases) > 0 {
		grace = time.After(0)
	}
	for late := false; len(r.waiting) > 0 && !late; {
		select {
		case res := <-r.results:
			had := len(r.leases) > 0
			switch r.heard(res); {
			case len(r.leases) == 0:
				ask(1)
			case !had:
				t := time.NewTimer(place.LeaseGrace(time.Since(began), slowest))
				defer t.Stop()
				grace = t.C
			}
		case <-grace:
			late = true
		case <-overdue.C:
			if left := time.Until(due); left > 0 && len(picks) == 0 {
				overdue.Reset(left)
				continue
			}
			for p := range r.waiting {
				n.failed(p, errLate)
			}
			switch {
			case len(r.leases) > 0:
			case ask(reserveFirst):
				overdue.Reset(time.Until(due))
			default:
				late = true
			}
		case <-ctx.Done():
			return Placed{}, ctx.Err()
		}
	}
	if len(r.leases) > 0 {
		return r.take(), nil
	}
	if n.ctx.Err() != nil {
		return Placed{}, context.Canceled
	}
	reasons, last := maps.Clone(r.reasons), r.last
	if silent := len(r.waiting); silent > 0 {
		reasons[Unreachable] += silent
		last = errLate
	}
	reason, count := mostFrequent(reasons)
	return Placed{}, &capacity.Refusal{
		Reason:     reason,
		Detail:     fmt.Sprintf("%d of %d nodes asked gave that reason; the last said: %v", count, r.tried, last),
		RetryAfter: placeRetry,
	}
}

// take takes the best lease there is.
func (r *race) take() Placed {
	// Those still under way have cost their request.
	req := reserveRequest(r.request, r.d.Topic, r.need, 0)
	inject(r.ctx, req)
	spent := costOf(r.n.reserves, req)
	for range r.waiting {
		r.d.Messages += spent.messages
		r.d.Bytes += spent.bytes
	}
	best := slices.MaxFunc(r.leases, func(a, b reserved) int { return cmp.Or(cmp.Compare(a.score, b.score), cmp.Compare(b.index, a.index)) })
	r.leases = slices.DeleteFunc(r.leases, func(res reserved) bool { return res.index == best.index })
	for _, res := range r.leases {
		r.d.Reservations[res.index].Detail = "another is the better one"
	}
	return best.placed
}

// errUnproven means that a candidate's lease, or the record with it, is not
// what it has to be.
var errUnproven = errors.New("lease not used")

// reserveRequest asks for a lease, and for the target's record in topic unless
// it is no newer than seq.
func reserveRequest(id string, topic Topic, need capacity.Need, seq uint64) *pb.ReserveRequest {
	return &pb.ReserveRequest{Op: &pb.ReserveRequest_Reserve{Reserve: &pb.Reserve{
		Id: id, Need: needToWire(need), Topic: string(topic), Seq: seq,
	}}}
}

func isRefusal(err error) bool {
	var refusal *capacity.Refusal
	return errors.As(err, &refusal)
}

// reserveOn asks one candidate and checks what it says. It takes reserveTime at
// most, and goes on when the placement is decided without it: ctx is the race's.
func (n *Node) reserveOn(ctx context.Context, pick *offer, topic Topic, request string, need capacity.Need) (r reserved) {
	start := time.Now()
	target := pick.Record.Node
	r.node = target
	defer func() { r.elapsed = time.Since(start) }()
	if target == n.ID() {
		if n.cfg.Grant == nil {
			r.err = &capacity.Refusal{Reason: "closed", Detail: "this node takes nothing"}
			return r
		}
		var v policy.Evaluation
		if v, r.err = n.confirm(topic, need, pick, nil, n.use(topic), 0); r.err == nil {
			r.placed.Candidate, r.score = v.Candidate, v.Score
			r.placed.Lease, r.err = n.cfg.Grant(capacity.Request{ID: request, From: target, Need: need})
		}
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, max(reserveTime, 6*pick.RTT))
	defer cancel()
	n.learn(target, pick.Record.Addrs)
	n.locate(ctx, target) // its record is fresh: worth a dial
	var known uint64
	if !pick.Told() {
		known = pick.Record.Seq
	}
	req := reserveRequest(request, topic, need, known)
	var resp pb.ReserveResponse
	var rtt time.Duration
	rtt, r.spent, r.err = n.call(ctx, target, n.reserves, req, &resp, maxReserve)
	if r.err != nil {
		n.failed(target, r.err)
		return r
	}
	n.answered(target, rtt)
	switch {
	case resp.Refusal != nil:
		r.err = &capacity.Refusal{
			Reason:     clip(resp.Refusal.Reason, 64),
			Detail:     clip(resp.Refusal.Detail, maxReason),
			RetryAfter: time.Duration(resp.Refusal.RetryMs) * time.Millisecond,
		}
	case resp.Error != "":
		r.err = fmt.Errorf("request not served: %.200s", resp.Error)
	default:
		var err error
		r.placed.Lease, err = signed.OpenLease(resp.Lease, n.wall(time.Now()))
		if l := r.placed.Lease; err == nil && (l.Target != target || l.From != n.ID() || l.ID != request || l.Need != need) {
			err = errors.New("it is for something else")
		}
		if err == nil {
			var v policy.Evaluation
			v, err = n.confirm(topic, need, pick, resp.Record, resp.Use, rtt)
			r.placed.Candidate, r.score = v.Candidate, v.Score
		}
		var unfit *errUnfit
		if err != nil && !errors.As(err, &unfit) {
			err = fmt.Errorf("%w: %w", errUnproven, err)
		}
		r.err = err
	}
	return r
}

// clip makes s fit for a field of a message.
func clip(s string, most int) string { return capacity.Printable(s, most) }

// ReleaseLease gives a lease back that is not going to be used. A target that
// cannot be told frees it by itself when it runs out.
func (n *Node) ReleaseLease(ctx context.Context, l capacity.Lease) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	n.releaseCtx(ctx, l.Target, l.ID)
}

// release is ReleaseLease in the background of this node's own work, whose ctx is
// the node's.
func (n *Node) release(ctx context.Context, target peer.ID, request string) {
	ctx, cancel := context.WithTimeout(ctx, releaseTime)
	defer cancel()
	n.releaseCtx(ctx, target, request)
}

func (n *Node) releaseCtx(ctx context.Context, target peer.ID, request string) {
	if target == n.ID() {
		if n.cfg.Release != nil {
			n.cfg.Release(target, request)
		}
		return
	}
	req := &pb.ReserveRequest{Op: &pb.ReserveRequest_Release{Release: &pb.Release{Id: request}}}
	if _, _, err := n.call(ctx, target, n.reserves, req, &pb.ReserveResponse{}, maxReserve); err != nil {
		n.log.DebugContext(ctx, "lease not given back; it runs out by itself", "peer", target, "err", err)
	}
}

// serveReserve answers one request of /reserve/1 by the node's own ledger.
func (n *Node) serveReserve(s network.Stream) {
	var req pb.ReserveRequest
	busy := &pb.ReserveResponse{Refusal: refusalToWire(&capacity.Refusal{Reason: "busy", Detail: errBusy.Error(), RetryAfter: time.Second})}
	n.serveOne(s, maxReserve, &req, busy, func(from peer.ID) proto.Message { return n.answerReserve(from, &req) })
}

func (n *Node) answerReserve(from peer.ID, req *pb.ReserveRequest) (resp *pb.ReserveResponse) {
	ctx, span := n.serving(from, req, req.Trace)
	defer func() { n.served(ctx, span, from, resp) }()
	switch op := req.Op.(type) {
	case *pb.ReserveRequest_Reserve:
		need, err := needFromWire(op.Reserve.Need)
		if err != nil {
			return &pb.ReserveResponse{Error: clip(err.Error(), maxReason)}
		}
		topic := Topic(op.Reserve.Topic)
		if err := topic.CheckAsked(); err != nil {
			return &pb.ReserveResponse{Error: clip(err.Error(), maxReason)}
		}
		// The record as it was before the lease, which may have taken the
		// last there was.
		r, sealed, ok := n.outbox.published(topic)
		if !ok {
			return &pb.ReserveResponse{Refusal: refusalToWire(&capacity.Refusal{
				Reason: "gone", Detail: "this node has nothing in " + string(topic) + " any more",
			})}
		}
		if r.Seq <= op.Reserve.Seq {
			sealed = nil
		}
		use := n.use(topic)
		lease, err := n.grant(capacity.Request{ID: op.Reserve.Id, From: from, Need: need})
		if err != nil {
			return &pb.ReserveResponse{Refusal: refusalToWire(err)}
		}
		return &pb.ReserveResponse{Lease: lease, Record: sealed, Use: use}
	case *pb.ReserveRequest_Release:
		if n.cfg.Release != nil {
			n.cfg.Release(from, op.Release.Id)
		}
		return &pb.ReserveResponse{}
	default:
		return &pb.ReserveResponse{Error: "unknown request"}
	}
}

// use is what this node uses now, and in a stream's topic what it does for that.
func (n *Node) use(topic Topic) []byte {
	if n.cfg.Sample == nil {
		return nil
	}
	r, carries := n.cfg.Sample()
	r.Carries = nil
	for _, c := range carries {
		if c.Stream == topic.Stream() {
			r.Carries = &c
		}
	}
	r.Seq, r.Issued = 1, time.UnixMilli(1)
	return signed.EncodeLoad(&r)
}

func (n *Node) grant(req capacity.Request) ([]byte, error) {
	if n.cfg.Grant == nil {
		return nil, &capacity.Refusal{Reason: "closed", Detail: "this node takes nothing"}
	}
	lease, err := n.cfg.Grant(req)
	if err != nil {
		return nil, err
	}
	return signed.SealLease(lease, n.cfg.Key)
}

func refusalToWire(err error) *pb.Refusal {
	var refusal *capacity.Refusal
	if !errors.As(err, &refusal) {
		refusal = &capacity.Refusal{Reason: "error", Detail: err.Error()}
	}
	return &pb.Refusal{
		Reason:  clip(refusal.Reason, 64),
		Detail:  clip(refusal.Detail, maxReason),
		RetryMs: uint32(refusal.RetryAfter.Milliseconds()),
	}
}
