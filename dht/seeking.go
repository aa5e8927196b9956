package dht

import (
	"weir/dht/place"
	"weir/dht/seek"
)

// Results of searches and placements; see package seek.
type (
	Answer       = seek.Answer
	Asked        = seek.Asked
	Decision     = seek.Decision
	DecisionNeed = seek.DecisionNeed
	Evaluation   = seek.Evaluation
	Reservation  = seek.Reservation
	Placed       = seek.Placed
)

// Reasons why no candidate was chosen, or one was not taken; see package seek.
const (
	NoCandidates = place.NoCandidates
	Unreachable  = place.Unreachable
	NotKnown     = seek.NotKnown
)
