package meter

import "weir/capacity"

// minUplink keeps a stream that pauses from looking free, in bit/s.
const minUplink = 64_000

// DefaultNeed is what a stream is assumed to need before it was measured: HD
// video at a common bitrate, and audio.
func DefaultNeed(purpose capacity.Purpose, stream string) capacity.Need {
	need := capacity.Need{Purpose: purpose, Stream: stream, Uplink: 2_500_000, Packets: 300}
	if purpose == capacity.Publish {
		need.Uplink = minUplink // a publisher costs downlink; RTCP goes back
	}
	return need
}

// NeedOf is what one more of those who take a stream costs that has these rates:
// bit/s and packets/s, 0 before it was measured.
func NeedOf(purpose capacity.Purpose, stream string, bits, packets int64) capacity.Need {
	need := DefaultNeed(purpose, stream)
	if bits > 0 {
		need.Uplink, need.Packets = max(bits, minUplink), packets
	}
	return need
}
