package meter

import "weir/capacity"

// minUplink is the least uplink of a stream, in bit/s, so that a paused one
// does not look free.
const minUplink = 64_000

// DefaultNeed is the assumed need of a stream before it was measured: HD video
// at a common bitrate, and audio.
func DefaultNeed(purpose capacity.Purpose, stream string) capacity.Need {
	need := capacity.Need{Purpose: purpose, Stream: stream, Uplink: 2_500_000, Packets: 300}
	if purpose == capacity.Publish {
		need.Uplink = minUplink // a publisher costs downlink; only RTCP is sent back
	}
	return need
}

// NeedOf returns the cost of one more receiver of a stream with these rates:
// bit/s and packets/s, 0 before they were measured.
func NeedOf(purpose capacity.Purpose, stream string, bits, packets int64) capacity.Need {
	need := DefaultNeed(purpose, stream)
	if bits > 0 {
		need.Uplink, need.Packets = max(bits, minUplink), packets
	}
	return need
}
