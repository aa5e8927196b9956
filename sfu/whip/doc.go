// Package whip serves WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): the HTTP
// surface, who may come in, sessions and their end, and where a client is sent
// that this node has no room for.
//
// In come HTTP requests, through [Server.Handler], and what other nodes hand
// over, through [Server.TakeOver] (package handover). Bodies, tickets and tokens are hostile until
// read. A request passes, in this order: its right (package rights), its offer
// (package sdp), how many of its kind may be set up or wait at once, the
// ledger, and, to publish, the name of its stream. Out go answers, redirects
// with tickets, problems (package problem) and events.
//
// Media and streams are asked of others by the interfaces [Media] and
// [Streams]; nothing here knows of a network but by them and by the functions
// of [Config], so that tests need none.
//
// Each session has one goroutine, which ends it and waits for its [Transport],
// and each publisher one more, for some seconds, that looks whether its name
// was taken elsewhere at the same time. [Server.Close] waits for all of them;
// requests end with the contexts they came with.
package whip
