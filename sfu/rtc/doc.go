// Package rtc is pion's side of a node: PeerConnections on one media socket, and
// the ends that they give to package forward.
//
// An [Engine] makes a [Transport] for each publisher, viewer and cascade link. A
// [LocalTrack] is a DownTrack as pion wants it, and the Sender that it is bound
// to; a [RemoteTrack] reads what another node sends and hands it to an UpTrack.
// A publisher's packets take another way: its Transport hands them to a
// BufferFactory before pion looks at them.
//
// pion's goroutines are those of its ICE mux, agents, DTLS and SRTP; they end
// with Transport.GracefulClose and [Engine.Close]. The package starts none: the
// owner of a transport calls [ReadRTCP], RemoteTrack.ReadRTP and
// RemoteTrack.ReadRTCP on goroutines of its own, which end when the transport
// closes.
package rtc
