package holder

import (
	"math"
	"time"

	"weir/capacity"
)

// A node publishes its record soon after its load has changed, and in any case
// before holders might consider it gone.
const (
	SampleEvery = 250 * time.Millisecond // how often a node looks at its load
	PublishGap  = 500 * time.Millisecond // least time between two records of one topic with changes
	Keepalive   = 5 * time.Second        // most time between them

	// ConfirmEvery is how often a holder is sent something that it has to
	// answer. If an update in between is lost the next one replaces it: a
	// record outlives three of them.
	ConfirmEvery = 3 * Keepalive
	// WholeEvery is how often a record is published whole even if updates
	// suffice.
	WholeEvery = 2 * time.Minute

	// moved is how far a resource's use has to change, as a share of its limit,
	// to be published before the keepalive.
	moved = 0.05
)

// LoadMoved reports whether b differs from a, the record published last, by
// enough to be published before the keepalive.
func LoadMoved(a, b *capacity.Record) bool {
	if a.State != b.State || a.URL != b.URL || a.Media != b.Media || a.Region != b.Region ||
		a.Zone != b.Zone || a.Policy != b.Policy || a.Release != b.Release {
		return true
	}
	usage := func(a, b capacity.Usage) bool {
		return a.Limit != b.Limit || b.Limit > 0 && share(a.Used-b.Used, b.Limit) >= moved
	}
	return usage(a.Uplink, b.Uplink) || usage(a.Downlink, b.Downlink) ||
		usage(a.Packets, b.Packets) || usage(a.Sessions, b.Sessions) || usage(a.Streams, b.Streams) ||
		b.Uplink.Limit > 0 && share(a.Reserved-b.Reserved, b.Uplink.Limit) >= moved ||
		a.CPULimit != b.CPULimit || b.CPULimit > 0 && math.Abs(a.CPU-b.CPU)/b.CPULimit >= moved
}

func share(part, whole int64) float64 { return math.Abs(float64(part)) / float64(whole) }
