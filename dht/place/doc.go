// Package place decides where a session or a pull goes: which holders to ask,
// how far to look, which candidates to ask for room, and whose lease to take.
//
// Its input is events, each with the time at which it happened: an answer, a
// failure, a deadline that has passed. Each event is a method of a state
// machine, and returns a step: what to do now, and until when to wait for the
// next event. Nothing here starts a goroutine, reads a clock or sends a
// message, and randomness is passed in. A machine belongs to one goroutine at a
// time.
//
// From the inside out: a [Query] asks the holders of one topic, or a [Poll]
// every listed node for its own record; a [Knowledge] and a [Hearing] decide
// whether the answers suffice. A [Search] makes queries near by and then
// further away. [Merge], [Rank] and [Order] make a list of candidates out of
// the offers. A [Placement] searches, has candidates reserve room, and chooses.
//
// Package seek carries the steps out with goroutines and timers, testnet/sim
// with a queue of events on virtual time, and testnet/model sums their cost.
// The constants of placement are defined only here, except for those that
// holders use as well, which are in package holder.
package place
