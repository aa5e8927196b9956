// Package handover carries the request of a client from a full node to the
// one that serves it, by the protocol of pb/overflow.proto.
//
// [Ask] runs at the node that hands over: an offer and a ticket go out on a
// [Signal], and the answer comes back. A [Taker] runs at the node that serves:
// it turns what comes, hostile until read, into the HTTP request that the
// client would have sent, and has an http.Handler answer it. Only the node
// that holds the lease may bring its ticket.
//
// Both run on the caller's goroutine. While the handler answers, a Taker has
// one more, which ends before Serve returns, and looks whether the node that
// asked has gone.
package handover
