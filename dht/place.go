package dht

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/place"
)

const (
	// reserveTime bounds one reservation, a dial included.
	reserveTime = time.Second
	releaseTime = 2 * time.Second
)

const (
	// NoCandidates is the reason of a refusal for which no rule can be blamed.
	NoCandidates = place.NoCandidates
	// Unreachable is why a candidate was not taken that did not answer: whether it
	// has room is not known.
	Unreachable = place.Unreachable
	// NotKnown is why nobody was chosen if those who had to know have not answered.
	NotKnown = "not-known"
)

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
	d, passed, err := n.decide(ctx, &query{topic: topic, need: need, exclude: exclude, limit: queryLimit, explain: true})
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
	d.Topic = topic
	r := n.newReservation(ctx, need, &d)
	defer r.end()
	// Where a list says whom to ask, all were.
	r.placement.Exclude, r.placement.Further = exclude, topic == CapacityTopic() && !n.cfg.Discovery.Listed()
	placed, err = r.run(ctx, r.placement.Start())
	d.TotalMillis = millis(time.Since(d.Time))
	return placed, d, err
}

// PlaceAmong is Place among nodes whose sealed records are at hand, however they
// came here. Records that do not verify are left out.
func (n *Node) PlaceAmong(ctx context.Context, topic Topic, need capacity.Need, sealed [][]byte, exclude []peer.ID) (placed Placed, d Decision, err error) {
	ctx, span := n.placing(ctx, topic, need)
	defer func() { d.placed(span, err) }()
	q := &query{topic: topic, need: need, exclude: exclude}
	q.begin(n)
	now := time.Now()
	for _, b := range sealed {
		if records, _, err := verify(n.wall(now), topic, [][]byte{b}); err == nil && len(records) == 1 {
			q.add(records[0].record, b)
		}
	}
	q.answer.Held, q.answer.Elapsed = len(q.found), time.Since(now)
	d, passed := n.weigh(now, q, q.result())
	r := n.newReservation(ctx, need, &d)
	defer r.end()
	r.placement.Start()
	placed, err = r.run(ctx, r.placement.Found(time.Now(), n.order(passed), place.Levels))
	d.TotalMillis = millis(time.Since(now))
	return placed, d, err
}

// extend adds what a search further afield found.
func (d *Decision) extend(e Decision) {
	d.count(e.Held, e.Answer.Rejected)
	d.Hearing = d.Hearing.And(e.Hearing)
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
func (n *Node) decide(ctx context.Context, q *query) (Decision, []offer, error) {
	start := time.Now()
	answer, err := n.find(ctx, q)
	d, passed := n.weigh(start, q, answer)
	if errors.Is(err, ErrUnanswered) {
		d.Refused = NotKnown
	}
	return d, passed, err
}

// weigh ranks what q found.
func (n *Node) weigh(start time.Time, q *query, answer Answer) (Decision, []offer) {
	compiled, need := n.cfg.Policy(), q.need
	d := Decision{
		Topic:        q.topic,
		Need:         DecisionNeed(need),
		Policy:       compiled.Policy().Version,
		Time:         start,
		Answer:       answer,
		FindMillis:   millis(answer.Elapsed),
		Reservations: []Reservation{},
		Verdicts:     []Judged{},
	}
	ranking := compiled.Rank(need, n.me(need.Region), answer.Candidates)
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

// order is whom to ask of those that passed; see [place.Order].
func (n *Node) order(passed []offer) []offer {
	return place.Order(passed, n.cfg.Policy().Policy().Keep, n.peers.Live.Suspect, newRand())
}

// refusal is for when no candidate passed.
func (d *Decision) refusal() *capacity.Refusal {
	rejected := maps.Clone(d.rejected)
	for rule, count := range d.Rejected {
		rejected[rule] = max(rejected[rule], count)
	}
	return place.NoRoom(d.Topic, d.Held, rejected)
}

// errUnproven means that a candidate's lease, or the record with it, is not
// what it has to be.
var errUnproven = errors.New("lease not used")

// reserveRequest asks for a lease, and for the target's record in topic unless
// it is no newer than seq.
func reserveRequest(id string, topic Topic, need capacity.Need, seq uint64) *pb.ReserveRequest {
	return &pb.ReserveRequest{Op: &pb.ReserveRequest_Reserve{Reserve: &pb.Reserve{
		Id: id, Need: signed.NeedToWire(need), Topic: string(topic), Seq: seq,
	}}}
}

func isRefusal(err error) bool {
	var refusal *capacity.Refusal
	return errors.As(err, &refusal)
}

// reserveOn asks one candidate and checks what it says. It takes reserveTime at
// most, and goes on when the placement is decided without it: ctx is the reservation's.
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
	n.peers.Learn(target, pick.Record.Addrs)
	n.peers.Locate(ctx, target) // its record is fresh: worth a dial
	var known uint64
	if !pick.Told() {
		known = pick.Record.Seq
	}
	req := reserveRequest(request, topic, need, known)
	var resp pb.ReserveResponse
	var rtt time.Duration
	rtt, r.spent, r.err = n.overlay.Call(ctx, target, n.reserves, req, &resp, maxReserve)
	if r.err != nil {
		n.peers.Failed(target, r.err)
		return r
	}
	n.peers.Answered(target, rtt)
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
	if _, _, err := n.overlay.Call(ctx, target, n.reserves, req, &pb.ReserveResponse{}, maxReserve); err != nil {
		n.log.DebugContext(ctx, "lease not given back; it runs out by itself", "peer", target, "err", err)
	}
}

// serveReserve answers one request of /reserve/1 by the node's own ledger.
func (n *Node) serveReserve(s network.Stream) {
	var req pb.ReserveRequest
	busy := &pb.ReserveResponse{Refusal: refusalToWire(&capacity.Refusal{Reason: "busy", Detail: errBusy.Error(), RetryAfter: time.Second})}
	n.overlay.Server.ServeOne(s, maxReserve, &req, busy, func(from peer.ID) proto.Message { return n.answerReserve(from, &req) })
}

func (n *Node) answerReserve(from peer.ID, req *pb.ReserveRequest) (resp *pb.ReserveResponse) {
	ctx, span := n.overlay.Server.Begin(from, req, req.Trace)
	defer func() { n.overlay.Server.End(ctx, span, from, resp) }()
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
		r, sealed, ok := n.publisher.Published(topic)
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
