package dht

import (
	"context"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
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

// Publishers is [naming.Registrar.Publishers].
func (n *Node) Publishers(ctx context.Context, stream string) ([]peer.ID, error) {
	return n.Names.Publishers(ctx, stream)
}

// Claim is [naming.Registrar.Claim].
func (n *Node) Claim(ctx context.Context, stream string) (release func(), err error) {
	return n.Names.Claim(ctx, stream)
}
