package capacity

// A node counts as full from FullAt on, until its stress has fallen to FreeAt.
const (
	FullAt = 0.90
	FreeAt = 0.72
)

// Stress is how close the node is to its nearest limit: the largest of
// used/limit over CPU, uplink (including reserved uplink), packets and
// sessions. It is 0 for an idle node, 1 at a limit, and can exceed 1. Resources
// without a limit do not count.
func (r *Record) Stress() float64 {
	s := max(
		Usage{r.Uplink.Used + r.Reserved, r.Uplink.Limit}.share(),
		r.Packets.share(),
		r.Sessions.share(),
	)
	if r.CPULimit > 0 {
		s = max(s, r.CPU/r.CPULimit)
	}
	return s
}

// StressWith is the stress with need met as well. What the CPU will have to do
// is not known.
func (r *Record) StressWith(need Need) float64 {
	with := Record{
		Uplink: r.Uplink, Packets: r.Packets, Sessions: r.Sessions, Reserved: r.Reserved, CPU: r.CPU, CPULimit: r.CPULimit,
	}
	with.Uplink.Used += need.Uplink
	with.Packets.Used += need.Packets
	if need.Purpose != Cascade {
		with.Sessions.Used++
	}
	return with.Stress()
}

// share is used/limit, or 0 if there is no limit.
func (u Usage) share() float64 {
	if u.Limit <= 0 {
		return 0
	}
	return float64(u.Used) / float64(u.Limit)
}

// Hysteresis turns stress into full or not full without flapping. The zero
// value is ready: not full, with the thresholds FullAt and FreeAt.
type Hysteresis struct {
	Full float64 // full from here on; 0: FullAt
	Free float64 // free again from here down; 0: FreeAt

	full bool
}

// Next takes the newest stress and returns whether the node is full.
func (h *Hysteresis) Next(stress float64) bool {
	up, down := h.Full, h.Free
	if up == 0 {
		up = FullAt
	}
	if down == 0 {
		down = FreeAt
	}
	switch {
	case stress >= up:
		h.full = true
	case stress <= down:
		h.full = false
	}
	return h.full
}
