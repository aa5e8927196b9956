// Package reserve answers /reserve/1: it grants and takes back leases by the
// node's own ledger.
//
// The input is a request and the peer that the handshake proved; the output is
// a signed lease with the node's newest record and load, or a
// [capacity.Refusal]. It has no goroutines and sends nothing. Package seek is
// the other end.
package reserve
