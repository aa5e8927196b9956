package forward

import "sync/atomic"

// A Reason is why a received packet was not forwarded. It does not cover
// packets that viewers miss while they wait for a keyframe.
type Reason int

// Values of Reason.
const (
	Forwarded    Reason = iota // it was forwarded
	Malformed                  // not RTP
	NoSection                  // its MID is of no accepted section
	PayloadType                // of no accepted section, or not of the one it came in
	UnknownSSRC                // neither MID nor payload type determines the section
	SecondStream               // not the stream that is forwarded in its section
	OtherLayer                 // a simulcast layer other than the one forwarded
	Unpaired                   // a retransmission of no forwarded stream
	Replaced                   // of an UpTrack that another has replaced
	Duplicate                  // a retransmission of a packet received before
	Unassigned                 // on a cascade link, of a track that is not pulled
	Forged                     // SRTP does not authenticate it
	Replayed                   // SRTP has seen it before, or it is too old to tell
	Early                      // one too many before the handshake was over
	reasons
)

var reasonNames = [reasons]string{
	"", "malformed", "no_section", "payload_type", "unknown_ssrc", "second_stream", "layer_not_forwarded",
	"rtx_unpaired", "source_replaced", "duplicate", "not_pulled",
	"forged", "replayed", "early",
}

// String returns the reason in snake_case, as in metrics.
func (r Reason) String() string { return reasonNames[r] }

// Drops counts the packets received and not forwarded, by reason. The zero
// value is ready.
type Drops [reasons]atomic.Int64

// Add counts one packet.
func (d *Drops) Add(r Reason) { d[r].Add(1) }

// Counts returns the totals by name. With zeros, it includes reasons without
// packets.
func (d *Drops) Counts(zeros bool) map[string]int64 {
	all := map[string]int64{}
	for r := Malformed; r < reasons; r++ {
		if n := d[r].Load(); n > 0 || zeros {
			all[reasonNames[r]] = n
		}
	}
	return all
}

// Sum returns the total of all reasons.
func (d *Drops) Sum() (n int64) {
	for r := range d {
		n += d[r].Load()
	}
	return n
}
