// Package whip serves WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): the HTTP
// endpoints, access control and admission, sessions and their end, and the
// redirect of clients that this node has no room for.
//
// Input is HTTP requests, through [Server.Handler], and handovers from other
// nodes, through [Server.TakeOver] (package handover). Bodies, tickets and
// tokens are untrusted until parsed. A request passes these checks in this
// order: its right (package rights), its offer (package sdp), the limits of
// requests being set up and waiting (package admission), the ledger, and, to
// publish, the name of its stream. Output is answers, redirects with tickets,
// problems (package problem) and events.
//
// Media and streams are behind the interfaces [Media] and [Streams]. The
// package reaches the network only by them and by the functions of [Config], so
// that tests need no network.
//
// Each session has one goroutine, which ends it and waits for its [Transport].
// Each publisher has one more for some seconds, which checks whether its name
// was taken elsewhere at the same time. [Server.Close] waits for all of them;
// requests end with the contexts they came with.
package whip
