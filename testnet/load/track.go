package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// sampled is how many packets there are to each one that is decrypted.
	sampled = 64
	// framesKept is how many frames behind the newest a late packet may belong to.
	framesKept = 256
	seenSize   = 4096 // sequence numbers
	mostGap    = 1024 // of missing packets that are asked for
	mostAsks   = 3
	firstAsk   = 20 * time.Millisecond
	nextAsk    = 60 * time.Millisecond
)

// A Window is a range of frames of each kind.
type Window struct{ from, until [kinds]uint32 }

func (w *Window) has(k kind, n uint32) bool {
	return w != nil && n-w.from[k] < w.until[k]-w.from[k]
}

// A tally is what came of the frames in a window.
type tally struct {
	window   *Window
	packets  [kinds]uint64
	frames   [kinds]uint64           // complete
	repacked int64                   // packets of those above the publisher's
	delay    *hdrhistogram.Histogram // of packets, µs
}

func newTally(w *Window) *tally {
	return &tally{window: w, delay: hdrhistogram.New(1, time.Minute.Microseconds(), 2)}
}

// A track is what a viewer gets of audio or video.
type track struct {
	kind kind
	log  *log

	ssrc    uint32
	begun   bool
	first   uint16 // sequence number
	highest uint16
	cycles  uint16
	seen    [seenSize / 64]uint64
	missing []missing

	synced bool
	offset uint32 // of timestamps, from the publisher's
	left   int    // packets until one is decrypted
	frames [framesKept]frame

	packets, repeated, shifts uint64
	count                     uint64 // packets within the window
}

// A frame is what has come of one. A server may have put it into other packets
// than the publisher's, so it is complete when there is none missing up to its
// marker.
type frame struct {
	number      uint32
	got         int
	lowest, end uint16 // sequence numbers
	ended       bool   // end is known
	complete    bool
}

type missing struct {
	seq  uint16
	asks int
	next int64 // ns
}

// An arrival is what the header of a packet says, and when it came.
type arrival struct {
	ssrc   uint32
	seq    uint16
	stamp  uint32
	marker bool
	at     int64 // ns of the wall clock
}

// packet counts one packet. It reports whether it completes a keyframe; open
// decrypts it.
func (t *track) packet(p arrival, in *tally, open func() []byte) (keyframe bool) {
	ssrc, seq, stamp, at := p.ssrc, p.seq, p.stamp, p.at
	if !t.begun || ssrc != t.ssrc {
		*t = track{kind: t.kind, log: t.log, ssrc: ssrc, begun: true, highest: seq - 1, first: seq, packets: t.packets, repeated: t.repeated, shifts: t.shifts, count: t.count}
	}
	if !t.take(seq, at) {
		t.repeated++
		return false
	}
	t.packets++
	if t.left--; t.left < 0 && !t.sync(stamp, open()) {
		return false
	}
	n := (stamp - t.offset) / t.kind.step()
	sent, ok := t.log.get(n)
	if !ok {
		return false
	}
	if in != nil && in.window.has(t.kind, n) {
		t.count++
		in.packets[t.kind]++
		_ = in.delay.RecordValue(max(1, (at-sent.at)/1000)) // beyond a minute: lost
	}
	f := &t.frames[n%framesKept]
	if f.number != n {
		*f = frame{number: n, lowest: seq}
	}
	f.got++
	if int16(seq-f.lowest) < 0 {
		f.lowest = seq
	}
	if p.marker || t.kind == audio {
		f.ended, f.end = true, seq
	}
	keyframe = t.finish(f, in)
	if next := &t.frames[(n+1)%framesKept]; next.number == n+1 && next.lowest == seq+1 {
		keyframe = t.finish(next, in) || keyframe // it may have begun after what came now
	}
	return keyframe
}

// finish counts f if it is complete now. It reports whether it is a keyframe.
func (t *track) finish(f *frame, in *tally) bool {
	sent, ok := t.log.get(f.number)
	if !ok || f.complete || !f.ended || f.got != int(f.end-f.lowest)+1 {
		return false
	}
	if f.lowest != t.first && !t.marked(f.lowest-1) && f.got < sent.packets {
		return false // it may have begun before
	}
	f.complete = true
	if in != nil && in.window.has(t.kind, f.number) {
		in.frames[t.kind]++
		in.repacked += int64(f.got - sent.packets)
	}
	return sent.key
}

// sync learns from a packet's payload how its timestamp and the publisher's
// differ. It reports whether that is known now.
func (t *track) sync(stamp uint32, payload []byte) bool {
	n, ok := t.kind.number(payload)
	if !ok {
		t.left = 0 // try the next
		return t.synced
	}
	t.left = sampled
	offset := stamp - n*t.kind.step()
	if t.synced && offset != t.offset {
		t.shifts++
	}
	t.synced, t.offset = true, offset
	return true
}

// take reports whether seq is new, and notes what is missing before it.
func (t *track) take(seq uint16, at int64) bool {
	ahead := int(int16(seq - t.highest))
	if ahead <= -seenSize/2 {
		return false
	}
	if ahead > 0 {
		if ahead > mostGap { // the sender began anew
			t.missing = t.missing[:0]
		}
		for s := t.highest + 1; s != seq+1; s++ {
			t.mark(s, false)
			if s != seq && ahead <= mostGap && len(t.missing) < mostGap {
				t.missing = append(t.missing, missing{s, 0, at + firstAsk.Nanoseconds()})
			}
		}
		if seq < t.highest {
			t.cycles++
		}
		t.highest = seq
		t.mark(seq, true)
		return true
	}
	if t.marked(seq) {
		return false
	}
	t.mark(seq, true)
	for i := range t.missing {
		if t.missing[i].seq == seq {
			t.missing = append(t.missing[:i], t.missing[i+1:]...)
			break
		}
	}
	return true
}

func (t *track) mark(seq uint16, here bool) {
	word, bit := &t.seen[seq%seenSize/64], uint64(1)<<(seq%64)
	if *word &^= bit; here {
		*word |= bit
	}
}

func (t *track) marked(seq uint16) bool { return t.seen[seq%seenSize/64]>>(seq%64)&1 != 0 }

// due appends the sequence numbers that are to be asked for at now.
func (t *track) due(seqs []uint16, now int64) []uint16 {
	kept := t.missing[:0]
	for _, m := range t.missing {
		if m.next <= now {
			seqs = append(seqs, m.seq)
			m.asks++
			m.next = now + nextAsk.Nanoseconds()
		}
		if m.asks < mostAsks {
			kept = append(kept, m)
		}
	}
	t.missing = kept
	return seqs
}
