package seek

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/scope"
	"weir/capacity/tracing"
	"weir/dht/overlay"
	"weir/dht/place"
)

// A reservation carries out one placement: it searches, asks candidates to
// reserve room, and releases unused leases. It belongs to the goroutine that
// places, except for end.
type reservation struct {
	s       *Seeker
	ctx     context.Context // the node's context, with the placement's trace
	need    capacity.Need
	request string
	d       *Decision

	placement place.Placement
	searched  bool
	index     map[peer.ID]int    // in Decision.Reservations
	leases    map[peer.ID]Placed // given
	results   chan reserved      // with a buffer for all
}

// reserved is a candidate's answer.
type reserved struct {
	node    peer.ID
	placed  Placed
	score   float64 // by the policy, for the target as it is now
	elapsed time.Duration
	spent   overlay.Cost
	err     error
}

func (s *Seeker) newReservation(ctx context.Context, need capacity.Need, d *Decision) *reservation {
	id := make([]byte, 8)
	_, _ = rand.Read(id) // never fails
	return &reservation{
		s: s, ctx: tracing.Carry(s.cfg.Overlay.Context(), ctx), need: need, request: hex.EncodeToString(id), d: d,
		placement: place.Placement{Patience: s.patience},
		index:     make(map[peer.ID]int), leases: make(map[peer.ID]Placed), results: make(chan reserved, place.MaxCandidates),
	}
}

// run carries out step and the steps that follow, to the end.
func (r *reservation) run(ctx context.Context, step place.Step) (Placed, error) {
	for !step.Done {
		var err error
		if step.Search != nil {
			step, err = r.search(ctx, step)
		} else {
			step, err = r.reserve(ctx, step)
		}
		if err != nil {
			return Placed{}, err
		}
	}
	r.do(step)
	refusal := step.Refusal
	switch {
	case step.Chosen != "":
		return r.choose(step), nil
	case refusal == nil:
		refusal = r.d.refusal()
	case r.s.cfg.Overlay.Context().Err() != nil:
		return Placed{}, context.Canceled
	}
	r.d.Refused = refusal.Reason
	return Placed{}, refusal
}

// search runs the search that step wants. Only the first search's error counts;
// after a later one, the refusal stands.
func (r *reservation) search(ctx context.Context, step place.Step) (place.Step, error) {
	r.do(step)
	s, w := r.s, step.Search
	if r.searched && ctx.Err() != nil {
		r.placement.Further = false
		return r.placement.Found(time.Now(), nil, w.Level), nil
	}
	q := &query{topic: r.d.Topic, need: r.need, exclude: w.Exclude, limit: place.OfferLimit, compact: true, level: w.Level}
	d, passed, err := s.decide(ctx, q)
	if !r.searched {
		*r.d, r.searched = d, true
		if err != nil {
			return place.Step{}, err
		}
	} else {
		r.d.extend(d)
	}
	for len(r.results) > 0 {
		r.do(r.heard(<-r.results))
	}
	return r.placement.Found(time.Now(), s.order(passed), q.level), nil
}

// reserve carries out steps until one wants a search or ends the placement.
func (r *reservation) reserve(ctx context.Context, step place.Step) (place.Step, error) {
	began := time.Now()
	defer func() { r.d.ReserveMillis += capacity.Milliseconds(time.Since(began)) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !step.Done && step.Search == nil {
		r.do(step)
		await(timer, step.Due)
		select {
		case res := <-r.results:
			step = r.heard(res)
		case <-timer.C:
			step = r.placement.Tick(time.Now())
		case <-ctx.Done():
			return place.Step{}, ctx.Err()
		}
	}
	return step, nil
}

// do sends the requests and releases of step.
func (r *reservation) do(step place.Step) {
	for _, p := range step.Overdue {
		r.s.cfg.Peers.Failed(p, overlay.ErrLate)
	}
	for _, o := range step.Reserve {
		r.ask(o)
	}
	r.release(step.Release)
}

// ask has the candidate o reserve room, in the background.
func (r *reservation) ask(o offer) {
	s, node := r.s, o.Record.Node
	r.index[node] = len(r.d.Reservations)
	r.d.Reservations = append(r.d.Reservations, Reservation{Node: node, Reason: place.Abandoned})
	topic := r.d.Topic // r.d is not safe to read in the background
	if !s.cfg.Overlay.Go(func() { r.results <- s.reserveOn(r.ctx, &o, topic, r.request, r.need) }) {
		r.results <- reserved{node: node, err: context.Canceled}
	}
}

// release tells nodes that their leases are not used, in the background.
func (r *reservation) release(nodes []peer.ID) {
	for _, p := range nodes {
		r.s.cfg.Overlay.Go(func() { r.s.release(r.ctx, p, r.request) })
	}
}

// heard notes one answer.
func (r *reservation) heard(res reserved) place.Step {
	note := &r.d.Reservations[r.index[res.node]]
	note.Elapsed = capacity.Milliseconds(res.elapsed)
	r.d.Messages += res.spent.Messages
	r.d.Bytes += res.spent.Bytes
	if res.err == nil {
		note.Lease, note.Reason = res.placed.Lease.ID, ""
		r.leases[res.node] = res.placed
	} else {
		note.Reason, note.Detail = refusalReason(res.err)
		r.s.cfg.Reputation.Refused(time.Now(), res.node)
	}
	return r.answered(res)
}

// answered passes an answer to the placement.
func (r *reservation) answered(res reserved) place.Step {
	now := time.Now()
	reason, _ := refusalReason(res.err)
	switch {
	case res.err == nil:
		return r.placement.Granted(now, res.node, res.score)
	case IsRefusal(res.err):
		return r.placement.Refused(now, res.node, reason, res.err)
	}
	return r.placement.Failed(now, res.node, reason, res.err)
}

// refusalReason is why a candidate gave no usable lease.
func refusalReason(err error) (reason, detail string) {
	var refusal *capacity.Refusal
	var unfit *errUnfit
	switch {
	case err == nil:
		return "", ""
	case errors.As(err, &refusal):
		return refusal.Reason, refusal.Detail
	case errors.As(err, &unfit):
		return unfit.rule, err.Error()
	case errors.Is(err, scope.ErrRefused):
		return "address", err.Error()
	case errors.Is(err, errUnproven):
		return "unproven", err.Error()
	}
	return Unreachable, err.Error()
}

// choose notes the outcome. Requests still in progress count in the cost.
func (r *reservation) choose(step place.Step) Placed {
	req := ReserveRequest(r.request, r.d.Topic, r.need, 0)
	overlay.Inject(r.ctx, req)
	spent := overlay.CostOf(r.s.cfg.Reserves, req)
	for range r.placement.Pending() {
		r.d.Messages += spent.Messages
		r.d.Bytes += spent.Bytes
	}
	for _, p := range step.Release {
		if note := &r.d.Reservations[r.index[p]]; note.Lease != "" {
			note.Detail = "another is the better one"
		}
	}
	placed := r.leases[step.Chosen]
	r.d.Refused = ""
	r.d.choose(&placed.Candidate.Record)
	return placed
}

// end releases the leases that are not used, including late ones.
func (r *reservation) end() {
	r.release(r.placement.Abandon().Release)
	if r.placement.Pending() == 0 {
		return
	}
	r.s.cfg.Overlay.Go(func() {
		for r.placement.Pending() > 0 {
			r.release(r.answered(<-r.results).Release)
		}
	})
}
