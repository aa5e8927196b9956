// Package forward forwards RTP from the source of a track to all its receivers.
// It has streams, tracks and their numbering, keyframe requests,
// retransmission, and the meters of these. It knows nothing of sockets,
// encryption or negotiation.
//
// An [UpTrack] is the current source of a [Track]: a publisher's media, or a
// track of a cascade link. Its owner passes each RTP packet to
// [UpTrack.Forward] and each sender report to [UpTrack.SenderReport]; the track
// keeps the packet in its ring, the only copy, numbers it for each [DownTrack]
// and passes it to the DownTrack's [Sender]. RTCP from a DownTrack's far end
// goes to [DownTrack.RTCP], from where keyframe requests reach the [Receiver] of
// the UpTrack, and missing packets are sent again from the track's ring.
//
// A Track that has DownTracks has one goroutine, from the first [Track.Add] to
// the last [Track.Remove], which waits for its end. It takes what is new in the
// ring to one DownTrack after the other, and flushes the [Batch] that their
// Senders have added to. There is the timer of a delayed keyframe request, too,
// which [UpTrack.Close] stops. Everything else runs on the goroutines that pass
// packets in: one for each UpTrack, and one that reads the RTCP of each
// DownTrack. A Sender is called with its DownTrack's lock held, which no other
// shares. It must not block, nor must a Receiver.
package forward
