package seek

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/holder"
	"weir/dht/place"
)

// Decision is the account of a placement: the records known, the candidates
// rejected with reasons, and the cost. Messages and bytes are counted up to the
// decision; later answers, and the release of an unused lease, show in the
// overlay's traffic only.
type Decision struct {
	Topic        holder.Topic  `json:"topic"`
	Need         DecisionNeed  `json:"need"`
	Policy       uint64        `json:"policy"` // version applied
	Time         time.Time     `json:"time"`
	Answer                     // the holders' answer
	Verdicts     []Evaluation  `json:"verdicts"` // passed first, best first
	Reservations []Reservation `json:"reservations"`
	Chosen       peer.ID       `json:"chosen,omitempty"`
	Refused      string        `json:"refused,omitempty"` // why no candidate was chosen

	rejected map[string]int // candidates, by rule

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

// Evaluation is the policy's evaluation of one candidate. If Told is set, a holder
// applied the policy; Name, URL and Region are then known of the chosen
// candidate alone, whose record came with its lease.
type Evaluation struct {
	Node     peer.ID            `json:"node"`
	Name     string             `json:"name,omitempty"` // its own claim
	Seq      uint64             `json:"seq"`
	Told     bool               `json:"told,omitempty"` // offered as a digest, without its record
	URL      string             `json:"url"`
	Region   string             `json:"region,omitempty"`
	Rule     string             `json:"rule,omitempty"` // the rule that rejected it
	Score    float64            `json:"score"`
	Terms    []policy.TermScore `json:"terms"`
	Stress   float64            `json:"stress"`
	Headroom *int64             `json:"headroom,omitempty"` // bit/s of uplink to spare; nil: no limit
	Trust    float64            `json:"trust"`              // 0…1: by refusals and shortfalls, seen here or reported to holders
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

// extend adds the result of a wider search.
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

// choose notes that r's node was chosen, and the name, URL and region in its
// record.
func (d *Decision) choose(r *capacity.Record) {
	d.Chosen = r.Node
	for i := range d.Verdicts {
		if v := &d.Verdicts[i]; v.Node == r.Node {
			v.Name, v.URL, v.Region = r.Name, r.URL, r.Region
		}
	}
}

// decide asks the holders and ranks their answers. Explain needs the records
// themselves; for Place, the holders' offers suffice.
func (s *Seeker) decide(ctx context.Context, q *query) (Decision, []offer, error) {
	start := time.Now()
	answer, err := s.find(ctx, q)
	d, passed := s.weigh(start, q, answer)
	if errors.Is(err, place.ErrUnanswered) {
		d.Refused = NotKnown
	}
	return d, passed, err
}

// weigh ranks the candidates that q found.
func (s *Seeker) weigh(start time.Time, q *query, answer Answer) (Decision, []offer) {
	compiled, need := s.cfg.Policy(), q.need
	d := Decision{
		Topic:        q.topic,
		Need:         DecisionNeed(need),
		Policy:       compiled.Policy().Version,
		Time:         start,
		Answer:       answer,
		FindMillis:   capacity.Milliseconds(answer.Elapsed),
		Reservations: []Reservation{},
		Verdicts:     []Evaluation{},
	}
	ranking := compiled.Rank(need, s.Me(need.Region), answer.Candidates)
	now := time.Now()
	passed := s.rankOffers(now, ranking, q.offers)
	all := slices.Clone(passed)
	d.rejected = ranking.RejectedBy()
	for _, v := range ranking.Rejected {
		all = append(all, holder.OfferOf(v))
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
		d.Verdicts = append(d.Verdicts, Evaluation{
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
			Told:     v.DigestOnly(),
			Trust:    v.Trust,
			RTT:      capacity.Milliseconds(v.RTT),
			Age:      capacity.Milliseconds(now.Sub(v.Record.Issued)),
		})
	}
	return d, passed
}

// order returns the candidates to ask, of those that passed; see [place.Order].
func (s *Seeker) order(passed []offer) []offer {
	return place.Order(passed, s.cfg.Policy().Policy().Keep, s.cfg.Live.Suspect, newRand())
}

// refusal is the refusal if no candidate passed.
func (d *Decision) refusal() *capacity.Refusal {
	rejected := maps.Clone(d.rejected)
	for rule, count := range d.Rejected {
		rejected[rule] = max(rejected[rule], count)
	}
	return place.NoRoom(d.Topic, d.Held, rejected)
}
