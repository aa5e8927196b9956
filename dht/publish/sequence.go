package publish

import (
	"slices"
	"time"
)

// numbersKept is how many issued sequence numbers are remembered: those of all
// records of this node that can still be held somewhere.
const numbersKept = 4096

// A sequence issues the sequence numbers of records and remembers them.
type sequence struct {
	last uint64
	list []uint64 // rising; the oldest are dropped
}

// next returns a number above all before it, in this process and, by the clock,
// in former ones: Unix milliseconds, or one more than the last if that is
// higher.
func (s *sequence) next(now time.Time) uint64 {
	s.last = max(uint64(now.UnixMilli()), s.last+1)
	if len(s.list) == numbersKept {
		s.list = slices.Delete(s.list, 0, numbersKept/2)
	}
	s.list = append(s.list, s.last)
	return s.last
}

// foreign reports whether a record of this node with seq is another process's:
// it is as new as those of this process, and not one of them.
func (s *sequence) foreign(seq uint64) bool {
	if len(s.list) == 0 || seq < s.list[0] {
		return false // of a former process, perhaps
	}
	_, ours := slices.BinarySearch(s.list, seq)
	return !ours
}
