package client

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSequence(t *testing.T) {
	run := func(from uint16, n int) (list []uint16) {
		for i := range n {
			list = append(list, from+uint16(i))
		}
		return list
	}
	for _, c := range []struct {
		name              string
		seqs              []uint16
		news, lost, reset uint64
	}{
		{"in order", run(10, 5), 5, 0, 0},
		{"one missing", []uint16{1, 2, 4, 5}, 4, 1, 0},
		{"one late", []uint16{1, 2, 4, 3, 5}, 5, 0, 0},
		{"a duplicate", []uint16{1, 2, 2, 3}, 3, 0, 0},
		{"wraps", run(65533, 6), 6, 0, 0},
		{"missing across the wrap", []uint16{65534, 1}, 2, 2, 0},
		{"late across the wrap", []uint16{65534, 0, 65535}, 3, 0, 0},
		{"older than the first", []uint16{100, 99, 101}, 2, 0, 0},
		{"too late to tell", []uint16{0, 2000, 5}, 2, 1999, 0},
		{"a gap short of a reset", []uint16{0, 2999}, 2, 2998, 0},
		{"a stray number is not the stream", []uint16{1, 2, 30000, 3}, 3, 0, 0},
		{"began anew", []uint16{1, 2, 30000, 30001, 30002}, 4, 0, 1},
		{"lost before beginning anew stays lost", []uint16{1, 3, 30000, 30001}, 3, 1, 1},
	} {
		var s sequence
		news := uint64(0)
		for _, seq := range c.seqs {
			if s.observe(seq) {
				news++
			}
		}
		if news != c.news || s.lost() != c.lost || s.resets != c.reset {
			t.Errorf("%s: %d new, %d lost, %d resets; want %d, %d, %d", c.name, news, s.lost(), s.resets, c.news, c.lost, c.reset)
		}
	}
	if lost := new(sequence).lost(); lost != 0 {
		t.Errorf("%d lost of nothing", lost)
	}
}

// In a stream with drops, duplicates and reordering within the window, the
// packets lost are those dropped for good between the first and the last
// received.
func TestSequenceCountsWhatNeverCame(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		first := rapid.Uint16().Draw(rt, "first")
		n := rapid.IntRange(1, 3000).Draw(rt, "n")
		dropEvery := rapid.IntRange(2, 50).Draw(rt, "drop")
		swapEvery := rapid.IntRange(2, 50).Draw(rt, "swap")
		var sent []uint16
		dropped := uint64(0)
		for i := range n {
			if i%dropEvery == 1 && i < n-2 {
				dropped++
				continue
			}
			sent = append(sent, first+uint16(i))
		}
		for i := swapEvery; i+1 < len(sent)-1; i += swapEvery {
			sent[i], sent[i+1] = sent[i+1], sent[i]
		}
		var s sequence
		for _, seq := range sent {
			if !s.observe(seq) {
				rt.Fatalf("%d is not new", seq)
			}
			if s.observe(seq) {
				rt.Fatalf("%d is new twice", seq)
			}
		}
		if s.lost() != dropped {
			rt.Fatalf("lost %d, want %d", s.lost(), dropped)
		}
	})
}

func TestSequenceHasAll(t *testing.T) {
	var s sequence
	for _, seq := range []uint16{65530, 65531, 65533, 65534, 65535, 0, 1} {
		s.observe(seq)
	}
	for _, c := range []struct {
		first, last uint16
		want        bool
	}{
		{65533, 1, true},
		{1, 1, true},
		{65530, 65531, true},
		{65530, 1, false},
		{65532, 65532, false},
		{1, 2, false},
		{1, 0, false},
		{40000, 1, false},
	} {
		if got := s.hasAll(c.first, c.last); got != c.want {
			t.Errorf("hasAll(%d, %d) = %v", c.first, c.last, got)
		}
	}
}
