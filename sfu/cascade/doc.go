// Package cascade is the link between two nodes: one PeerConnection, over which
// either end pulls streams from the other.
//
// Input is signalling from another node ([Links.Accept]), untrusted until
// parsed, and pulls of this node ([Links.Subscribe]). Output is signalling, as
// described in pb/cascade.proto, media by packages rtc and forward, and
// upstreams to package tree. A pull opens a link; the end that opened it closes
// it when nothing has been pulled over it for a while.
//
// [Link].run owns a link. It has one goroutine each for reading signalling, for
// writing it and for negotiation, one for the packets and RTCP of each media
// section, and one for each downstream; when run returns, all of them have
// ended. [Links.Close] waits for all links. The negotiator and the media
// sections are types of their own that do not know the link: the lock of
// sections may be taken while the link's is held, never the other way round.
package cascade
