// Package udp is the media socket of a node: one UDP socket, and with it a TCP
// listener for clients whose UDP is blocked (RFC 6544).
//
// Datagrams from the network pass a filter, and are read by pion's ICE mux; the
// mux writes datagrams to the network. The filter admits the datagrams that a
// [Peer] of this node may have sent: connectivity checks with the right
// password, then, from the source addresses of such checks, DTLS as far as it
// is legitimate at that time (RFC 6347, section 4.1.2.7), and RTP, which SRTP
// authenticates. The number of source addresses of a peer is bounded. Admitted
// and dropped datagrams are counted.
//
// The package starts no goroutines. One goroutine, the mux's, calls
// [Socket.ReadFromAddrPort]; any goroutine may call the rest. The mux's
// goroutines read and write TCP connections.
//
// Datagrams are read as many at once as have come, on Linux with recvmmsg and
// joined by the kernel (UDP_GRO), and handed out one by one. A [Batch] sends
// many at once: on Linux with sendmmsg, and those of one size to one peer as one
// message that the kernel divides, or the device (UDP_SEGMENT). What the kernel
// can do is found out when the socket is bound; what it does not do with some
// message is done one datagram at a time, as everything is on other systems.
package udp
