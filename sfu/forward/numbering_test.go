package forward

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weir/sfu/forward/repair"
)

// A far end sees continuous numbers, whatever the source of its track.
func TestNumbering(t *testing.T) {
	type step struct {
		attach bool          // another UpTrack takes over before the packet
		wait   time.Duration // time before the packet
		seq    uint16
		ts     uint32
		delta  bool // not a keyframe
	}
	for _, c := range []struct {
		name  string
		steps []step
		seqs  []uint16
		times []uint32
	}{
		{"a source keeps its own", []step{{seq: 7, ts: 100}, {seq: 8, ts: 3100}}, []uint16{7, 8}, []uint32{100, 3100}},
		{"numbers roll over", []step{{seq: 65534}, {seq: 65535, ts: 1}, {seq: 0, ts: 2}, {seq: 1, ts: 3}}, []uint16{65534, 65535, 0, 1}, []uint32{0, 1, 2, 3}},
		{"timestamps roll over", []step{{seq: 1, ts: 1<<32 - 1}, {seq: 2, ts: 2999}}, []uint16{1, 2}, []uint32{1<<32 - 1, 2999}},
		{"a loss stays a gap", []step{{seq: 1}, {seq: 4, ts: 9}}, []uint16{1, 4}, []uint32{0, 9}},
		{"what comes late stays late", []step{{seq: 1}, {seq: 3, ts: 6}, {seq: 2, ts: 3}}, []uint16{1, 3, 2}, []uint32{0, 6, 3}},
		{"what came is not sent twice", []step{{seq: 1}, {seq: 2, ts: 3}, {seq: 1}}, []uint16{1, 2}, []uint32{0, 3}},
		{"another source goes on", []step{{seq: 1}, {attach: true, wait: time.Second, seq: 500, ts: 7}}, []uint16{1, 2}, []uint32{0, 90000}},
		{"at once, time moves on all the same", []step{{seq: 1}, {attach: true, seq: 500, ts: 7}}, []uint16{1, 2}, []uint32{0, 1}},
		{"past the end of the numbers", []step{{seq: 65535}, {attach: true, wait: time.Second, seq: 9}}, []uint16{65535, 0}, []uint32{0, 90000}},
		{"after the highest, not after the last", []step{{seq: 3, ts: 6}, {seq: 5, ts: 12}, {seq: 4, ts: 9}, {attach: true, wait: time.Second, seq: 9}}, []uint16{3, 5, 4, 6}, []uint32{6, 12, 9, 12 + 90000}},
		{"but not before a keyframe", []step{{seq: 1}, {attach: true, seq: 500, delta: true}, {seq: 501, ts: 3000}}, []uint16{1, 2}, []uint32{0, 1}},
		{"late and from before the first", []step{{seq: 10, delta: true}, {seq: 11, ts: 3}, {seq: 9, delta: true}}, []uint16{11}, []uint32{3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				track := vp8Track()
				up := track.Attach(never)
				l, d := down(track)
				add(t, track, d)
				for _, s := range c.steps {
					time.Sleep(s.wait)
					if s.attach {
						up = track.Attach(never)
					}
					payload := keyPayload
					if s.delta {
						payload = deltaPayload
					}
					feed(up, packet(s.seq, s.ts, payload))
				}
				var seqs []uint16
				var times []uint32
				for _, p := range l.sent {
					seqs, times = append(seqs, p.SequenceNumber), append(times, p.Timestamp)
				}
				if !slices.Equal(seqs, c.seqs) || !slices.Equal(times, c.times) {
					t.Errorf("sent %v at %v, want %v at %v", seqs, times, c.seqs, c.times)
				}
			})
		})
	}
}

// A DownTrack that takes another's place under its SSRC continues its
// numbering, and can still send that one's packets again.
func TestFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := vp8Track(), vp8Track()
		from, to := first.Attach(never), second.Attach(never)
		l := &fakeSender{}
		binding := Binding{Sender: l, SSRC: 4711, PayloadType: 120, Repair: true, RTX: repair.RTX{SSRC: 4712, PayloadType: 121}}
		one, two := NewDownTrack(first), NewDownTrack(second)
		one.Bind(binding)
		add(t, first, one)
		feed(from, packet(100, 1000, keyPayload))
		nack(one, 100)
		one.Unbind()
		first.Remove(one)
		feed(from, packet(101, 4000, deltaPayload)) // without receivers

		two.Bind(binding)
		two.Follow(one)
		time.Sleep(2 * time.Second)
		add(t, second, two)
		feed(to, packet(7, 5, keyPayload))
		nack(two, 100)
		if len(l.sent) != 4 {
			t.Fatalf("sent %d packets, want two and each again once", len(l.sent))
		}
		if p := l.sent[2]; p.SequenceNumber != 101 || p.Timestamp != 1000+2*90000 {
			t.Errorf("it goes on with %d at %d", p.SequenceNumber, p.Timestamp)
		}
		a, b := l.sent[1], l.sent[3]
		if a.SSRC != 4712 || b.SSRC != 4712 || b.SequenceNumber != a.SequenceNumber+1 {
			t.Errorf("retransmissions are %v and %v, want numbers that follow on each other", a.Header, b.Header)
		}
	})
}

// An unbound DownTrack sends nothing, and requests to it do no harm.
func TestUnboundDownTrack(t *testing.T) {
	track := vp8Track()
	up := track.Attach(never)
	d := NewDownTrack(track)
	add(t, track, d)
	feed(up, packet(1, 0, keyPayload))
	nack(d, 1)
	if d.Bound() || d.Sent() != (Sent{}) {
		t.Errorf("bound %v, sent %+v", d.Bound(), d.Sent())
	}
}

// Forwarding allocates nothing, with header extensions and repair as well.
func TestForwardingDoesNotAllocate(t *testing.T) {
	track := vp8Track()
	up := track.Attach(never)
	up.Extensions(map[uint8]string{2: extCaptureTime})
	for range 3 {
		d := NewDownTrack(track)
		d.Bind(Binding{Sender: discard{}, SSRC: 1, PayloadType: 96, Extensions: map[string]uint8{extCaptureTime: 9}, Repair: true})
		add(t, track, d)
	}
	p := packet(0, 0, make([]byte, 1100))
	copy(p.Payload, keyPayload)
	if err := p.SetExtension(2, []byte("12345678")); err != nil {
		t.Fatal(err)
	}
	for range ringPackets {
		p.SequenceNumber++
		feed(up, p)
	}
	plain := testing.AllocsPerRun(1000, func() {
		p.SequenceNumber++
		feed(up, p)
	})
	if plain != 0 {
		t.Errorf("%v allocations a packet", plain)
	}
}

// nack requests packets from d.
func nack(d *DownTrack, seqs ...uint16) {
	b := d.bound.Load()
	ssrc := uint32(0)
	if b != nil {
		ssrc = b.SSRC
	}
	d.RTCP(nacks(ssrc, seqs...), time.Now())
}

// BenchmarkForwardRepairable measures the cost of one packet to 100 DownTracks
// that keep it for repair.
func BenchmarkForwardRepairable(b *testing.B) {
	track := vp8Track()
	up := track.Attach(never)
	for range 100 {
		d := NewDownTrack(track)
		d.Bind(Binding{Sender: discard{}, SSRC: 1, PayloadType: 96, Repair: true})
		add(b, track, d)
	}
	p := packet(0, 0, append(slices.Clone(keyPayload), make([]byte, 1000)...))
	b.ReportAllocs()
	for b.Loop() {
		p.SequenceNumber++
		feed(up, p)
	}
}
