package publish

import (
	"slices"
	"time"
)

// numbersKept is how many of the sequence numbers given out are remembered: those
// of all records of this node that can still be held somewhere.
const numbersKept = 4096

// A sequence gives records their numbers and remembers which it gave.
type sequence struct {
	last uint64
	list []uint64 // rising; the oldest go
}

// next returns a number above all before it, in this life and, by the clock, in
// former ones: Unix milliseconds where there is no reason for more.
func (s *sequence) next(now time.Time) uint64 {
	s.last = max(uint64(now.UnixMilli()), s.last+1)
	if len(s.list) == numbersKept {
		s.list = slices.Delete(s.list, 0, numbersKept/2)
	}
	s.list = append(s.list, s.last)
	return s.last
}

// foreign reports whether a record of this node that has seq is another
// process's: it is as new as those of this one, and none of them.
func (s *sequence) foreign(seq uint64) bool {
	if len(s.list) == 0 || seq < s.list[0] {
		return false // of an earlier life, perhaps
	}
	_, ours := slices.BinarySearch(s.list, seq)
	return !ours
}
