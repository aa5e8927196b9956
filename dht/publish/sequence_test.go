package publish

import (
	"testing"
	"time"
)

func TestForeignSequenceNumbers(t *testing.T) {
	var l sequence
	if l.foreign(7) {
		t.Error("something is foreign before anything was published")
	}
	for seq := uint64(100); seq < 100+4*numbersKept; seq += 2 {
		l.next(time.UnixMilli(int64(seq)))
	}
	last := l.list[len(l.list)-1]
	for seq, want := range map[uint64]bool{50: false, 101: false, last: false, last - 2: false, last - 1: true, last + 1: true} {
		if got := l.foreign(seq); got != want {
			t.Errorf("%d is foreign: %v, want %v", seq, got, want)
		}
	}
	if len(l.list) > numbersKept {
		t.Errorf("%d numbers kept", len(l.list))
	}
}

func TestSequenceNumbersRise(t *testing.T) {
	var o sequence
	now := time.UnixMilli(10_000_000)
	a, b, c := o.next(now), o.next(now), o.next(now.Add(-time.Hour))
	d := o.next(now.Add(time.Second))
	if a != 10_000_000 || b != a+1 || c != a+2 || d != a+1_000 {
		t.Errorf("got %d %d %d %d", a, b, c, d)
	}
}
