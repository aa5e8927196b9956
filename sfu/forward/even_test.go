package forward

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weir/sfu/forward/repair"
	"weir/sfu/layer"
)

func TestEven(t *testing.T) {
	for _, c := range []struct {
		name         string
		sizes, times []int // of payload; timestamps, of the last ones
		want         []int // padding
	}{
		{"a byte more in the last ones, as browsers divide a frame", []int{1111, 1111, 1111, 1112, 1112}, nil, []int{1, 1, 1, 0, 0}},
		{"a short one at the end", []int{1160, 1160, 1160, 400}, nil, []int{0, 0, 0, 0}},
		{"a longer one at the beginning", []int{1115, 1111, 1111}, nil, []int{0, 0, 0}},
		{"a longer one among others", []int{1111, 1115, 1111}, nil, []int{4, 0, 0}},
		{"growing by too much together", []int{100, 106, 112}, nil, []int{0, 6, 0}},
		{"exactly as much as there may be, and more", []int{100, 108, 300, 309}, nil, []int{8, 0, 0, 0}},
		{"two frames", []int{1111, 1112, 1111, 1112}, []int{0, 0, 3000, 3000}, []int{1, 0, 1, 0}},
		{"a frame that ends where a longer one begins", []int{1111, 1111, 1112}, []int{0, 0, 3000}, []int{0, 0, 0}},
		{"alone", []int{10}, nil, []int{0}},
		{"none", nil, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r ring
			s := newSource(&UpTrack{track: vp8Track()}, nil)
			var packets []kept
			for i, size := range c.sizes {
				p := packet(uint16(i), 0, make([]byte, size))
				if c.times != nil {
					p.Timestamp = uint32(c.times[i])
				}
				k, ok := r.put(s, p, layer.Info{}, false, time.Now())
				if !ok {
					t.Fatal("not kept")
				}
				packets = append(packets, k)
			}
			r.even(packets)
			var got, kept []int
			for i := range packets {
				got = append(got, int(packets[i].padding))
				k, _ := r.get(s, packets[i].position)
				kept = append(kept, int(k.padding))
			}
			if !slices.Equal(got, c.want) || !slices.Equal(kept, c.want) {
				t.Errorf("padded by %v, and by %v in the ring, want %v", got, kept, c.want)
			}
		})
	}
}

// A packet that is sent again is padded as the first time, without RTX; with RTX
// it is another packet, and not padded.
func TestRepairIsPaddedAlike(t *testing.T) {
	for _, rtx := range []repair.RTX{{}, {SSRC: 2, PayloadType: 97}} {
		synctest.Test(t, func(t *testing.T) {
			track := vp8Track()
			up := track.Attach(never)
			l, d := &slowSender{open: make(chan struct{})}, NewDownTrack(track)
			d.Bind(Binding{Sender: l, SSRC: 1, PayloadType: 96, Repair: true, RTX: rtx})
			add(t, track, d)
			up.Forward(packet(0, 0, keyPayload), time.Now())
			synctest.Wait() // it waits in the sender
			for i, size := range []int{100, 100, 101} {
				up.Forward(packet(uint16(i+1), 3000, append(slices.Clone(deltaPayload), make([]byte, size)...)), time.Now())
			}
			close(l.open)
			synctest.Wait()
			nack(d, 1, 3)
			var got []int
			for _, p := range l.sent {
				got = append(got, int(p.Header.PaddingSize))
				if p.Padding != (p.Header.PaddingSize > 0) {
					t.Errorf("padding bit %v, %d bytes", p.Padding, p.Header.PaddingSize)
				}
			}
			want := []int{0, 1, 1, 0, 1, 0}
			if rtx.SSRC != 0 {
				want[4] = 0
			}
			if !slices.Equal(got, want) {
				t.Errorf("padded by %v, want %v", got, want)
			}
		})
	}
}

// A late packet that was requested before its turn came is the same both times:
// AES-GCM must not encrypt two under one nonce.
func TestLatePacketsAreNotPadded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		up := track.Attach(never)
		l, d := &fakeSender{}, NewDownTrack(track)
		d.Bind(Binding{Sender: l, SSRC: 1, PayloadType: 96, Repair: true})
		add(t, track, d)
		slow, other := &slowSender{open: make(chan struct{})}, NewDownTrack(track)
		other.Bind(Binding{Sender: slow, SSRC: 2, PayloadType: 96})
		add(t, track, other)
		send := func(seq uint16, payload []byte, more int) {
			up.Forward(packet(seq, 0, append(slices.Clone(payload), make([]byte, more)...)), time.Now())
			synctest.Wait()
		}
		send(10, keyPayload, 0)
		slow.open <- struct{}{}
		synctest.Wait()
		send(12, deltaPayload, 100) // the other far end makes the next ones wait
		send(11, deltaPayload, 100)
		send(13, deltaPayload, 101)
		nack(d, 11)
		close(slow.open)
		synctest.Wait()
		var padded []int
		for _, p := range l.sent {
			if p.SequenceNumber == 11 {
				padded = append(padded, int(p.Header.PaddingSize))
			}
		}
		if !slices.Equal(padded, []int{0, 0}) {
			t.Errorf("the late packet was padded by %v, want twice by 0", padded)
		}
	})
}
