package dht

import "weir/dht/place"

// What an answer rests on, and the errors of one that rests on too little; see
// [place.Hearing].
type (
	Hearing    = place.Hearing
	Silence    = place.Silence
	Unanswered = place.Unanswered
)

// ErrUnanswered means that those who had to know did not answer: neither yes nor
// no. ErrNoHolders means that no holder of a topic answered.
var (
	ErrUnanswered = place.ErrUnanswered
	ErrNoHolders  = place.ErrNoHolders
)
