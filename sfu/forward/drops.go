package sfu

import "sync/atomic"

// An unsentReason is why a packet that came was not forwarded. Packets of viewers
// that wait for a keyframe are not meant: those are [out]'s.
type unsentReason int

const (
	unsentMalformed    unsentReason = iota // not RTP
	unsentNoSection                        // its MID is no accepted section's
	unsentPayloadType                      // of no accepted section, or not of the one it came in
	unsentUnknownSSRC                      // neither MID nor payload type tell the section
	unsentSecondStream                     // beside the stream that is forwarded in its section
	unsentLayer                            // a simulcast layer other than the one forwarded
	unsentRTX                              // a retransmission of no stream that is forwarded
	unsentReplaced                         // of a source that another took over from
	unsentDuplicate                        // retransmitted though it had come
	unsentUnassigned                       // on a cascade link, of a track nobody pulls
	unsentReasons
)

var unsentNames = [unsentReasons]string{
	"malformed", "no_section", "payload_type", "unknown_ssrc", "second_stream", "layer_not_forwarded",
	"rtx_unpaired", "source_replaced", "duplicate", "not_pulled",
}

func (r unsentReason) String() string { return unsentNames[r] }

// unsentCounts are the packets that came and were not forwarded, by reason.
type unsentCounts [unsentReasons]atomic.Int64

// add counts one.
func (d *unsentCounts) add(r unsentReason) { d[r].Add(1) }

// counts are the totals by name; with zeros, all reasons are there.
func (d *unsentCounts) counts(zeros bool) map[string]int64 {
	all := map[string]int64{}
	for r := range d {
		if n := d[r].Load(); n > 0 || zeros {
			all[unsentNames[r]] = n
		}
	}
	return all
}

func (d *unsentCounts) sum() (n int64) {
	for r := range d {
		n += d[r].Load()
	}
	return n
}

// NotForwarded counts the RTP packets that came from publishers and over cascade
// links and that were not forwarded, by reason, in snake_case. Each reason
// appears, also with 0.
func (s *SFU) NotForwarded() map[string]int64 { return s.drops.counts(true) }
