package forward

import "sync/atomic"

// A Reason is why a packet that came was not forwarded. Packets that viewers
// miss while they wait for a keyframe are not meant.
type Reason int

// The reasons.
const (
	Forwarded    Reason = iota // it was
	Malformed                  // not RTP
	NoSection                  // its MID is no accepted section's
	PayloadType                // of no accepted section, or not of the one it came in
	UnknownSSRC                // neither MID nor payload type tell the section
	SecondStream               // beside the stream that is forwarded in its section
	Layer                      // a simulcast layer other than the one forwarded
	Unpaired                   // a retransmission of no stream that is forwarded
	Replaced                   // of an UpTrack that another took over from
	Duplicate                  // retransmitted though it had come
	Unassigned                 // on a cascade link, of a track nobody pulls
	reasons
)

var reasonNames = [reasons]string{
	"", "malformed", "no_section", "payload_type", "unknown_ssrc", "second_stream", "layer_not_forwarded",
	"rtx_unpaired", "source_replaced", "duplicate", "not_pulled",
}

// String is the reason in snake_case, as metrics have it.
func (r Reason) String() string { return reasonNames[r] }

// Drops count the packets that came and were not forwarded, by reason. The zero
// value is ready.
type Drops [reasons]atomic.Int64

// Add counts one.
func (d *Drops) Add(r Reason) { d[r].Add(1) }

// Counts are the totals by name; with zeros, all reasons are there.
func (d *Drops) Counts(zeros bool) map[string]int64 {
	all := map[string]int64{}
	for r := Malformed; r < reasons; r++ {
		if n := d[r].Load(); n > 0 || zeros {
			all[reasonNames[r]] = n
		}
	}
	return all
}

// Sum is the total.
func (d *Drops) Sum() (n int64) {
	for r := range d {
		n += d[r].Load()
	}
	return n
}
