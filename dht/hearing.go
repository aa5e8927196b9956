package dht

import (
	"weir/dht/holding"
	"weir/dht/place"
)

// Hearing and its parts say which answers a result rests on, and Unanswered
// that there were too few; see [place.Hearing].
type (
	Hearing    = place.Hearing
	Silence    = place.Silence
	Unanswered = place.Unanswered
)

// ErrUnanswered means that the holders required for an answer did not reply:
// neither yes nor no.
var ErrUnanswered = place.ErrUnanswered

// ErrBusy means that a node has no place for one more request of its kind now.
// It says nothing about the records that the node holds.
var ErrBusy = holding.ErrBusy
