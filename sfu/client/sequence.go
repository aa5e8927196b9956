package client

// sequence counts the packets of one RTP stream by their sequence numbers (RFC
// 3550 appendix A.1), each packet once. The zero sequence is ready to use.
type sequence struct {
	started  bool
	base     uint64 // first extended number of this run
	highest  uint64 // extended by the number of wraps
	run      uint64 // received in this run
	earlier  uint64 // lost in the runs before
	suspect  uint16 // the successor of a number that seemed to restart
	suspects bool
	resets   uint64
	window   [reorder / 64]uint64 // the received ones of the last reorder numbers; bit n%reorder
}

const (
	// reorder is how late a packet may come, in packets, and still count. RTX
	// repairs come a round trip late.
	reorder = 1024
	// maxGap is how many packets in a row may be lost before a number is taken
	// for a restart (MAX_DROPOUT).
	maxGap = 3000
)

// observe records a packet and reports whether it is new: neither a duplicate,
// nor too late to tell.
func (s *sequence) observe(seq uint16) bool {
	if !s.started {
		s.begin(seq)
		return true
	}
	delta := int64(int16(seq - uint16(s.highest)))
	switch {
	case delta > 0 && delta < maxGap:
		s.forward(uint64(delta))
		s.suspects = false
	case delta <= 0 && -delta < reorder:
		n := s.highest - uint64(-delta)
		if n < s.base || s.has(n) {
			return false
		}
		s.set(n)
		s.suspects = false
	default:
		// Two consecutive numbers elsewhere are a restart of the stream.
		if s.suspects && seq == s.suspect {
			s.earlier = s.lost()
			s.resets++
			s.begin(seq - 1)
			s.forward(1)
			s.suspects = false
			s.run++
			return true
		}
		s.suspect, s.suspects = seq+1, true
		return false
	}
	s.run++
	return true
}

func (s *sequence) begin(seq uint16) {
	s.started = true
	// One wrap ahead of zero, so that earlier numbers can be told apart.
	s.base = 1<<16 + uint64(seq)
	s.highest = s.base
	s.run = 1
	s.window = [reorder / 64]uint64{}
	s.set(s.base)
}

// forward advances the highest number by n, which then counts as received.
func (s *sequence) forward(n uint64) {
	for i := uint64(1); i <= min(n, reorder); i++ {
		k := (s.highest + i) % reorder
		s.window[k/64] &^= 1 << (k % 64)
	}
	s.highest += n
	s.set(s.highest)
}

func (s *sequence) set(n uint64)      { s.window[n%reorder/64] |= 1 << (n % 64) }
func (s *sequence) has(n uint64) bool { return s.window[n%reorder/64]&(1<<(n%64)) != 0 }

// hasAll reports whether every packet from first to last, both of them among
// the last reorder numbers, has been received.
func (s *sequence) hasAll(first, last uint16) bool {
	back := uint64(uint16(s.highest) - first)
	n := uint64(last - first)
	if n > back || back >= reorder {
		return false
	}
	for i := range n + 1 {
		if !s.has(s.highest - back + i) {
			return false
		}
	}
	return true
}

// lost returns how many packets are lost so far. A late packet lowers it.
func (s *sequence) lost() uint64 {
	if !s.started {
		return 0
	}
	return s.earlier + s.highest - s.base + 1 - s.run
}
