// Package load loads a WHIP and WHEP server: one publisher of a made-up stream,
// and as many viewers as it is told to be, all on one UDP socket and one thread,
// so that the server is what limits.
//
// A [Swarm] owns the socket. Each of its peers has a loopback address of its
// own, connects by ICE and DTLS as a browser would, and takes what comes from
// there on as a sink: recvmmsg and UDP_GRO, RTP headers read in the clear, one
// packet in [sampled] decrypted. Arrival is when the kernel took a datagram in
// (SO_TIMESTAMPNS), sending is when the publisher handed a frame to the kernel;
// both by one clock. Viewers send receiver reports, NACKs for what is missing,
// and a PLI while they have no keyframe.
//
// What is counted belongs to frames that were sent within a [Window]: packets
// and complete frames of each viewer, and the delay of each packet from the
// moment its frame was sent.
//
// [Floor] measures what the machine needs at least for the same load: a header,
// AES-128-GCM and sendmmsg with UDP_SEGMENT to as many destinations.
//
// Linux only. Goroutines: the reader, of the Swarm; the publisher's sender, of
// the Publisher; DTLS's, of each peer. Close of the Swarm ends them all.
package load
