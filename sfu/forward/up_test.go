package forward

import "testing"

func TestGaps(t *testing.T) {
	var g gaps
	for i, c := range []struct {
		seq   uint16
		lost  int64
		fresh bool
	}{
		{65534, 0, true}, {65533, 0, false}, {65535, 0, true}, {2, 2, true}, {0, -1, true}, {0, 0, false}, {2, 0, false},
		{3, 0, true}, {1, -1, true}, {1, 0, false}, {3 + gapsWindow, gapsWindow - 1, true}, {3, 0, false}, {4, -1, true},
		{5000, 5000 - 4 - gapsWindow, true}, {4999, -1, true}, {5001, 0, true},
	} {
		if lost, fresh := g.take(c.seq); lost != c.lost || fresh != c.fresh {
			t.Errorf("step %d: take(%d) = %d, %t, want %d, %t", i, c.seq, lost, fresh, c.lost, c.fresh)
		}
	}
}

// A jump costs no more than the window, however far it goes: a publisher may
// send nothing else.
func BenchmarkJumps(b *testing.B) {
	var g gaps
	for seq := uint16(0); b.Loop(); seq += 1<<15 - 1 {
		g.take(seq)
	}
}
