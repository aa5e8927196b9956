// Package drain has a node take nothing new, and says when it may end. Requests
// to drain come in, from the operator, a signal or the node's own release; the
// ledger and the holders are told.
//
// [Drainer.Run] is its only work.
package drain
