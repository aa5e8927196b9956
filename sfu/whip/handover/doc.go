// Package handover carries the request of a client from a full node to the node
// that serves it, by the protocol of pb/overflow.proto.
//
// [Ask] runs on the full node: it sends an offer and a ticket on a [Signal],
// and receives the answer. A [Taker] runs on the serving node: it turns the
// message, untrusted until parsed, into the HTTP request that the client would
// have sent, and has an http.Handler answer it. Only the node that holds the
// lease may present its ticket.
//
// Both run on the caller's goroutine. While the handler answers, a Taker has
// one more, which detects that the full node has gone, and ends before Serve
// returns.
package handover
