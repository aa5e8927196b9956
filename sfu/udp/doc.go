// Package udp is the media socket of a node: one UDP socket, and with it a TCP
// listener for clients whose UDP is blocked (RFC 6544).
//
// Datagrams come in from the network, pass a filter, and are read by pion's ICE
// mux; what the mux writes goes out. The filter lets in what a [Peer] of this
// node may have sent: connectivity checks with the right password, then DTLS
// from the addresses that such checks came from, as far as it may stand there
// (RFC 6347, section 4.1.2.7), and RTP, which SRTP authenticates. The number of
// source addresses of a peer is bounded. All that passes, and all that does not,
// is counted.
//
// The package starts no goroutines. [Socket.ReadFromAddrPort] is called by one
// goroutine, the mux's; everything else by any. Of a TCP connection, the mux's
// goroutines read and write.
//
// The system calls are those of wire alone, which takes batches and moves one
// datagram at a time: recvmmsg, sendmmsg and GSO replace it there, and neither the
// filter nor the readers change.
package udp
