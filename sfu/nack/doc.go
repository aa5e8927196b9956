// Package nack requests missing RTP packets again (RFC 4585, section 6.2.1).
//
// In come the sequence numbers of the packets of a stream, retransmissions by
// their original number, and the time; out go NACKs, and whether the far end is
// to be asked for a keyframe, as a packet will not come any more. A [Log] is what
// is missing of one stream, without lock and clock. A [Requester] serves the
// streams of one connection with a single timer, which runs while something is
// missing.
package nack
