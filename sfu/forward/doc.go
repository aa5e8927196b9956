// Package forward carries RTP from what a track comes from to all that take it:
// streams, tracks and their numbering, keyframes, retransmission, and the meters
// of all that. It knows nothing of sockets, encryption or negotiation.
//
// An [UpTrack] is what a [Track] comes from at the moment: a publisher's stream,
// or a track of a cascade link. Its owner hands it each RTP packet by
// [UpTrack.Forward] and each sender report by [UpTrack.SenderReport]; the track
// numbers the packet for each [DownTrack] and hands it to that one's [Sender]. RTCP
// of a DownTrack's far end goes to [DownTrack.RTCP], from where keyframe requests
// reach the [Receiver] of the UpTrack, and missing packets are sent again from the
// DownTrack's ring.
//
// The package starts no goroutines, but for the timer of a keyframe request
// that is put off, which [UpTrack.Close] stops. Everything else runs on the
// goroutines that hand packets in: one for each UpTrack, one that reads the RTCP
// of each DownTrack. A Sender and a Receiver are called with a track's lock held
// and must not block.
package forward
