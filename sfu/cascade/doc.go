// Package cascade is the link between two nodes: one PeerConnection, over which
// either end pulls streams from the other.
//
// In come signalling from another node ([Links.Accept]), as bytes that are
// hostile until read, and pulls of this node's ([Links.Subscribe]). Out go
// signalling, which pb/cascade.proto describes, media by way of packages rtc and
// forward, and upstreams to package tree. A link is opened by a pull and closed by
// the end that opened it, when nothing has been pulled over it for a while.
//
// [Link].run owns a link, with a goroutine each that reads signalling, writes it
// and negotiates, one for each media section's packets and RTCP, and one for each
// downstream; when it returns, none of them is left. [Links.Close] waits for all
// links. The negotiator and the media sections of a link are types of their own,
// which know no link: the lock of sections may be taken inside the link's, never
// the other way round.
package cascade
