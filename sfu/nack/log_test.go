package nack

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// A bench is one Log, and what it requested when, by a clock of its own.
type bench struct {
	Log
	RTT
	now       time.Time
	requested []string
}

func newBench(rtt time.Duration) *bench {
	b := &bench{now: time.Unix(1000, 0)}
	b.Begin(rtt)
	return b
}

func (b *bench) came(seqs ...uint16) {
	for _, seq := range seqs {
		b.Came(seq, b.now, &b.RTT)
	}
}

// pass lets d pass, and does what is due meanwhile.
func (b *bench) pass(d time.Duration) {
	began, end := b.now, b.now.Add(d)
	for {
		at, ok := b.Next()
		if !ok || at.After(end) {
			break
		}
		b.now = at
		if seqs := b.Due(at, b.Estimate()); len(seqs) > 0 {
			b.requested = append(b.requested, fmt.Sprint(at.Sub(began).Milliseconds(), seqs))
		}
	}
	b.now = end
}

func (b *bench) expect(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(b.requested, want) {
		t.Errorf("requested %q, want %q", b.requested, want)
	}
	b.requested = nil
}

func TestAMissingPacketIsRequestedUntilItComes(t *testing.T) {
	b := newBench(100 * time.Millisecond)
	b.came(65533, 65534, 2)
	b.pass(200 * time.Millisecond)
	b.expect(t, "5 [65535 0 1]", "155 [65535 0 1]")
	b.came(0, 65535)
	b.pass(200 * time.Millisecond)
	b.expect(t, "105 [1]")
	b.came(1, 3)
	b.pass(5 * time.Second)
	b.expect(t)
	if b.Lost() {
		t.Error("lost, though all came")
	}
}

// Without any answer a packet is given up, within a bound of time and requests,
// and a keyframe is needed once.
func TestAPacketThatNeverComesIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		rtt          time.Duration
		least, most  int
		within       time.Duration
		keyframeCame bool
	}{
		{time.Millisecond, times, times, 2 * useful, false},
		{100 * time.Millisecond, 13, 15, 2*useful + 200*time.Millisecond, false},
		{time.Second, 8, 9, 4 * againMost * 5 / 2, false},
		{time.Millisecond, times, times, 2 * useful, true},
	} {
		b := newBench(c.rtt)
		b.came(1, 3)
		if c.keyframeCame {
			b.Keyframe(3)
		}
		b.pass(c.within)
		if n := len(b.requested); n < c.least || n > c.most {
			t.Errorf("round trip of %v: %d requests, want %d to %d", c.rtt, n, c.least, c.most)
		}
		if _, ok := b.Next(); ok || b.Lost() == c.keyframeCame || b.Lost() {
			t.Errorf("round trip of %v: not given up, or reported once too often", c.rtt)
		}
	}
}

// Packets that are overtaken and come by themselves are waited for longer.
func TestReorderingIsNotLoss(t *testing.T) {
	b := newBench(100 * time.Millisecond)
	b.came(1)
	for seq := uint16(3); seq < 100; seq += 2 { // each second one 4, 8, … 20 ms late
		b.came(seq)
		b.pass(min(time.Duration(seq), 20) * time.Millisecond)
		b.came(seq - 1)
	}
	if n := len(b.requested); n > 8 {
		t.Errorf("%d requests for packets that were only late", n)
	}
}

// A jump of the numbers is not a loss of all between.
func TestJumps(t *testing.T) {
	for _, c := range []struct {
		to   uint16
		lost bool
	}{{9001 + maxMissing, true}, {9000 + 1<<15 - 1, true}, {9000 - maxBehind - 1, false}, {9000 - maxBehind, false}, {9000, false}} {
		b := newBench(100 * time.Millisecond)
		b.came(8998, 9000)
		b.came(c.to)
		if lost := b.Lost(); lost != c.lost {
			t.Errorf("to %d: lost %v", c.to, lost)
		}
		if len(b.missing) > 1 {
			t.Errorf("to %d: %d packets missing", c.to, len(b.missing))
		}
	}
}

// An estimate that is far too low is mended by the answers, though each comes
// after several requests.
func TestRoundTripIsLearnt(t *testing.T) {
	const rtt = 300 * time.Millisecond
	b := newBench(10 * time.Millisecond)
	seq := uint16(1)
	b.came(seq)
	for range 150 {
		seq += 2
		b.came(seq)
		b.pass(b.reorder + rtt)
		b.came(seq - 1)
	}
	if e := b.Estimate(); e < rtt*3/4 || e > rtt*4/3 {
		t.Errorf("%v, want about %v", e, rtt)
	}
	b.requested = nil
	b.came(seq + 2)
	b.pass(rtt)
	if len(b.requested) != 1 {
		t.Errorf("requested %q within a round trip", b.requested)
	}
}

// Whatever the numbers, there are no more requests than a share of the packets
// that come.
func TestRequestsAreBounded(t *testing.T) {
	b := newBench(time.Millisecond)
	requests, packets := 0, 2000
	for i := range packets {
		b.came(uint16(i * maxMissing))
		b.pass(5 * time.Millisecond)
		requests += len(b.Due(b.now.Add(time.Second), 0))
	}
	if most := maxShare + share*packets; requests > most {
		t.Errorf("%d requests for %d packets, want at most %d", requests, packets, most)
	}
}

// What share of lost packets comes in time, if requests and answers are lost as
// well.
func TestShareOfLossesRepaired(t *testing.T) {
	for _, c := range []struct{ loss, least float64 }{{0.05, 0.9999}, {0.2, 0.999}} {
		rnd := rand.New(rand.NewPCG(1, 2))
		rtt := 80 * time.Millisecond
		b := newBench(rtt)
		lose := func() bool { return rnd.Float64() < c.loss }
		answers := map[time.Time][]uint16{}
		lost, came := 0, map[int]bool{}
		const packets = 30_000
		for i := range packets {
			if !lose() {
				b.came(uint16(i))
				came[i] = true
			}
			for range 4 { // of a millisecond each
				b.now = b.now.Add(time.Millisecond)
				for _, seq := range answers[b.now] {
					b.came(seq)
					came[i-int(uint16(i)-seq)] = true
				}
				delete(answers, b.now)
				for _, seq := range b.Due(b.now, b.Estimate()) {
					if request, answer := lose(), lose(); !request && !answer {
						answers[b.now.Add(rtt)] = append(answers[b.now.Add(rtt)], seq)
					}
				}
			}
		}
		for i := range packets - 1000 {
			if !came[i] {
				lost++
			}
		}
		if share := 1 - float64(lost)/packets/c.loss; share < c.least {
			t.Errorf("at a loss of %v of all, %.4f of it is repaired, want %v", c.loss, share, c.least)
		}
	}
}

// FuzzLog checks the bounds of a Log for any packets and times.
func FuzzLog(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 3, 5, 0, 2, 200})
	f.Add([]byte{255, 254, 0, 0, 2, 9, 127, 255, 1, 128, 0, 1, 255, 255, 255, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 2, 0, 50, 4, 0, 50, 6, 0, 255, 239, 255, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		var l Log
		var rtt RTT
		now := time.Unix(1000, 0)
		packets, requests := 0, 0
		for ; len(b) >= 3; b = b[3:] {
			seq := uint16(b[0])<<8 | uint16(b[1])
			l.Came(seq, now, &rtt)
			packets++
			if b[2]&1 != 0 {
				l.Keyframe(seq)
			}
			now = now.Add(time.Duration(int(b[2])-32) * 7 * time.Millisecond) // clocks may step back
			due := l.Due(now, rtt.Estimate())
			requests += len(due)
			if slices.Contains(due, seq) || len(l.missing) > maxMissing {
				t.Fatalf("%d missing, requested %v after %d came", len(l.missing), due, seq)
			}
			for i := 1; i < len(l.missing); i++ {
				if l.missing[i-1].number >= l.missing[i].number {
					t.Fatal("missing packets out of order")
				}
			}
			if e := rtt.Estimate(); e <= 0 || e > againMost {
				t.Fatalf("a round trip of %v", e)
			}
		}
		if requests > maxShare+share*packets {
			t.Fatalf("%d requests for %d packets", requests, packets)
		}
	})
}
