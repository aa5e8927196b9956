package dht

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/scope"
	"weir/dht/place"
	"weir/dht/seek"
)

// Results of searches and placements; see package seek.
type (
	Answer       = seek.Answer
	Asked        = seek.Asked
	Decision     = seek.Decision
	DecisionNeed = seek.DecisionNeed
	Judged       = seek.Judged
	Reservation  = seek.Reservation
	Placed       = seek.Placed
)

// Reasons why no candidate was chosen, or one was not taken; see package seek.
const (
	NoCandidates = place.NoCandidates
	Unreachable  = place.Unreachable
	NotKnown     = seek.NotKnown
)

// seeking wires a [seek.Seeker] to this node.
func (n *Node) seeking(self peer.ID) seek.Config {
	return seek.Config{
		ID: self, Client: n.cfg.Client, Publishes: n.cfg.Sample != nil, Discovery: n.cfg.Discovery,
		Overlay: n.overlay, Records: n.records, Reserves: n.reserves,
		Peers: n.peers, Live: n.peers.Live, Coordinates: n.overlay.Coords,
		Directory: n.dir, Cache: n.cache, LookUps: &n.lookUps, Sharding: n.sharding,
		Table: n.table, Holding: n.holding, Newest: n.newest, Beliefs: n.beliefs,
		Policy: func() *policy.Compiled { return n.cfg.Policy() }, Own: n.publisher.Own, Published: n.publisher.Published,
		Use: n.use, WarmedUp: func() bool { return n.warmth.Warm(time.Now()) },
		Measure: func(ctx context.Context, p peer.ID) error { return n.Prober.Ask(ctx, p) }, Reachable: reachable(n.cfg.Gate), Wall: n.wall,
		Grant: n.cfg.Grant, Release: n.cfg.Release,
		Log: n.log, Tracer: n.tracer,
	}
}

// reachable returns a check whose error says that clients must not be sent to
// the URL in a record. Nodes are reached by dials, which are gated themselves.
func reachable(gate *scope.Gate) func(need capacity.Need, r *capacity.Record) error {
	return func(need capacity.Need, r *capacity.Record) error {
		if need.Purpose == capacity.Cascade || r.URL == "" {
			return nil
		}
		return gate.CheckURL(scope.Redirect, r.URL)
	}
}

// Find is [seek.Seeker.Find].
func (n *Node) Find(ctx context.Context, topic Topic, need capacity.Need, exclude []peer.ID) (Answer, error) {
	return n.Seeker.Find(ctx, topic, need, exclude)
}

// Explain is [seek.Seeker.Explain].
func (n *Node) Explain(ctx context.Context, topic Topic, need capacity.Need, exclude []peer.ID) (Decision, error) {
	return n.Seeker.Explain(ctx, topic, need, exclude)
}

// Place is [seek.Seeker.Place].
func (n *Node) Place(ctx context.Context, topic Topic, need capacity.Need, exclude []peer.ID) (Placed, Decision, error) {
	return n.Seeker.Place(ctx, topic, need, exclude)
}

// PlaceAmong is [seek.Seeker.PlaceAmong].
func (n *Node) PlaceAmong(ctx context.Context, topic Topic, need capacity.Need, sealed [][]byte, exclude []peer.ID) (Placed, Decision, error) {
	return n.Seeker.PlaceAmong(ctx, topic, need, sealed, exclude)
}

// ReleaseLease is [seek.Seeker.ReleaseLease].
func (n *Node) ReleaseLease(ctx context.Context, l capacity.Lease) { n.Seeker.ReleaseLease(ctx, l) }
