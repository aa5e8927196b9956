// Package rtc wraps pion for a node: PeerConnections on one media socket, and
// their connection with package forward.
//
// An [Engine] makes a [Transport] for each publisher, viewer and cascade link.
// A [LocalTrack] is a DownTrack as a track of pion, and the Sender that it is
// bound to, which encrypts and sends around pion where it can; a [RemoteTrack]
// reads the packets of another node and passes them to an UpTrack. Packets of a
// publisher take another path: its Transport decrypts them on the goroutine that
// reads the socket, or passes them to a BufferFactory before pion parses them.
//
// pion's goroutines are those of its ICE mux, agents, DTLS and SRTP; they end
// with Transport.GracefulClose and [Engine.Close]. The package starts none: the
// owner of a transport calls [ReadRTCP], RemoteTrack.ReadRTP and
// RemoteTrack.ReadRTCP on its own goroutines, which end when the transport
// closes.
package rtc
