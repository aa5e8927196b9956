package forward

import (
	"bytes"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"weir/sfu/forward/repair"
	"weir/sfu/paramsets"
)

// counted attaches a source to track that counts keyframe requests in asked.
func counted(track *Track, asked *int) *UpTrack {
	return track.Attach(fakeReceiver(func() bool { *asked++; return true }))
}

// A viewer begins with the newest group if that is usable, and otherwise with a
// keyframe that is requested.
func TestJoinerBegins(t *testing.T) {
	type step struct {
		attach bool          // another UpTrack takes over before the packet
		wait   time.Duration // time after the packet
		seq    uint16
		key    bool
		size   int // of payload, at least
	}
	const frame = 33 * time.Millisecond
	big := []step{{seq: 1, key: true, wait: frame}}
	for i := range groupBytes / 1000 {
		big = append(big, step{seq: uint16(2 + i), size: 1000})
	}
	for _, c := range []struct {
		name  string
		steps []step
		sent  []uint16 // before the next packet comes
		asked int
	}{
		{"with the newest group", []step{{seq: 1, key: true, wait: time.Second}, {seq: 2, wait: frame}, {seq: 3, key: true, wait: time.Second}, {seq: 4, wait: frame}}, []uint16{3, 4}, 0},
		{"with a keyframe that has just begun", []step{{seq: 1, key: true, wait: frame}, {seq: 2, wait: frame}, {seq: 3, key: true}}, []uint16{3}, 0},
		{"over the end of the numbers", []step{{seq: 65535, key: true, wait: frame}, {seq: 0, wait: frame}}, []uint16{65535, 0}, 0},
		{"in order, whatever came first", []step{{seq: 1, key: true, wait: frame}, {seq: 3, wait: frame}, {seq: 2, wait: frame}}, []uint16{1, 2, 3}, 0},
		{"not before there is a packet", nil, nil, 1},
		{"not without a keyframe", []step{{seq: 1, wait: frame}}, nil, 1},
		{"not with an old one", []step{{seq: 1, key: true, wait: 2 * time.Second}, {seq: 2, wait: frame}}, nil, 1},
		{"not with a big group", big, nil, 1},
		{"not with a group that misses a packet", []step{{seq: 1, key: true, wait: frame}, {seq: 3, wait: frame}}, nil, 1},
		{"nor one that may miss its first", []step{{seq: 1, wait: frame}, {seq: 3, key: true, wait: frame}, {seq: 4}}, nil, 1},
		{"not with that of another source", []step{{seq: 1, key: true, wait: frame}, {attach: true, seq: 9, wait: frame}}, nil, 1},
		{"with the new source's", []step{{seq: 1, wait: frame}, {attach: true, seq: 9, key: true, wait: frame}, {seq: 10}}, []uint16{9, 10}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				track, asked := vp8Track(), 0
				up := counted(track, &asked)
				for _, s := range c.steps {
					if s.attach {
						up = counted(track, &asked)
					}
					payload := deltaPayload
					if s.key {
						payload = keyPayload
					}
					feed(up, packet(s.seq, 3000*uint32(s.seq), append(slices.Clone(payload), make([]byte, s.size)...)))
					time.Sleep(s.wait)
				}
				l, d := down(track)
				add(t, track, d)
				track.Settle()
				if seqs, _ := l.sequence(); !slices.Equal(seqs, c.sent) || asked != c.asked {
					t.Fatalf("sent %v and requested %d keyframes; want %v and %d", seqs, asked, c.sent, c.asked)
				}
			})
		})
	}
}

// h264Track is an H264 track whose offer had parameter sets.
func h264Track() *Track {
	return &Track{Codec: Codec{MimeType: "video/H264", ClockRate: 90000}, Sets: paramsets.Parse("video/H264", "Z0LgH9oBQBbsQA==,aM48gA==")}
}

// What a viewer catches up with is numbered as it came, and what follows goes
// on; reports and repairs hold for both.
func TestJoinerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := h264Track()
		up := track.Attach(never)
		idr, delta := []byte{0x65, 0x88}, []byte{0x61, 0x88}
		feed(up, packet(100, 0, delta))
		feed(up, packet(101, 3000, idr))
		feed(up, packet(102, 6000, delta))
		up.SenderReport(&rtcp.SenderReport{NTPTime: 1000 << 32, RTPTime: 6000}, time.Now())
		time.Sleep(time.Second)
		l, d := down(track)
		d.Bind(Binding{Sender: l, SSRC: 4711, PayloadType: 120, Repair: true, RTX: repair.RTX{SSRC: 4712, PayloadType: 121}})
		add(t, track, d)
		feed(up, packet(103, 96000, delta))
		want := []rtp.Packet{
			{Header: rtp.Header{SequenceNumber: 101, Timestamp: 3000}, Payload: []byte{0x67, 0x42, 0xe0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec, 0x40}},
			{Header: rtp.Header{SequenceNumber: 102, Timestamp: 3000}, Payload: []byte{0x68, 0xce, 0x3c, 0x80}},
			{Header: rtp.Header{SequenceNumber: 103, Timestamp: 3000}, Payload: idr},
			{Header: rtp.Header{SequenceNumber: 104, Timestamp: 6000}, Payload: delta},
			{Header: rtp.Header{SequenceNumber: 105, Timestamp: 96000}, Payload: delta},
		}
		if !slices.EqualFunc(l.sent, want, func(a, b rtp.Packet) bool {
			return a.SequenceNumber == b.SequenceNumber && a.Timestamp == b.Timestamp && bytes.Equal(a.Payload, b.Payload)
		}) {
			t.Fatalf("sent %v, want %v", l.sent, want)
		}
		if sr, ok := l.rtcp[0].(*rtcp.SenderReport); !ok || sr.NTPTime != 1001<<32 || sr.RTPTime != 96000 {
			t.Errorf("reported %+v", l.rtcp[0])
		}
		for _, p := range want {
			nack(d, p.SequenceNumber)
			again := l.sent[len(l.sent)-1]
			if again.SSRC != 4712 || again.Timestamp != p.Timestamp || !bytes.Equal(again.Payload, append([]byte{0, byte(p.SequenceNumber)}, p.Payload...)) {
				t.Errorf("repaired %v as %v", p, again)
			}
		}
	})
}

// fill feeds up a group of n packets of 1,000 bytes, two milliseconds apart.
func fill(up *UpTrack, n int) {
	for i := range n {
		payload := deltaPayload
		if i == 0 {
			payload = keyPayload
		}
		feed(up, packet(uint16(i), uint32(i*180), append(slices.Clone(payload), make([]byte, 1000)...)))
		time.Sleep(2 * time.Millisecond)
	}
}

// count returns how many packets d has sent to l, while it may send more.
func count(d *DownTrack, l *fakeSender) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(l.sent)
}

// A viewer catches up at a pace; others get what comes meanwhile at once, and so
// does it in its turn.
func TestJoinerIsPaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track := vp8Track()
		up := track.Attach(never)
		other, o := down(track)
		add(t, track, o)
		const group = 500
		fill(up, group)
		l, d := down(track)
		add(t, track, d)
		n, before := group, 0
		for steps := 0; before < n; steps++ {
			up.Forward(packet(uint16(n), uint32(n*180), deltaPayload), time.Now())
			n++
			synctest.Wait()
			sent := count(d, l) - before
			before += sent
			if sent > burstBytes/1000+2 || steps > 2*group*1000/burstBytes {
				t.Fatalf("sent %d packets at once in step %d", sent, steps)
			}
			if got := count(o, other); got != n {
				t.Fatalf("another viewer has %d packets of %d", got, n)
			}
			time.Sleep(burstPause)
		}
		seqs, _ := l.sequence()
		for i, seq := range seqs {
			if int(seq) != i {
				t.Fatalf("packet %d has number %d", i, seq)
			}
		}
	})
}

// A source that is replaced while a viewer catches up is not caught up with.
func TestSourceChangesWhileJoining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track, asked := vp8Track(), 0
		up := track.Attach(never)
		fill(up, 500)
		l, d := down(track)
		add(t, track, d)
		synctest.Wait()
		caught := count(d, l)
		next := counted(track, &asked)
		feed(next, packet(7000, 0, deltaPayload))
		time.Sleep(time.Second)
		feed(next, packet(7001, 90000, keyPayload))
		if caught == 0 || len(l.sent) != caught+1 || asked != 1 {
			t.Fatalf("sent %d packets, then %d, and requested %d keyframes", caught, len(l.sent)-caught, asked)
		}
		if before, after := l.sent[caught-1], l.sent[caught]; after.SequenceNumber != before.SequenceNumber+1 || int32(after.Timestamp-before.Timestamp) < 90000 {
			t.Errorf("%v goes on as %v", before.Header, after.Header)
		}
	})
}

// Many viewers that join at one moment cost the encoder one request at most.
func TestManyJoinersAskOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		age  time.Duration
		want int
	}{
		{"none with a group", time.Second, 0},
		{"one without", 3 * time.Second, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				track, asked := vp8Track(), 0
				up := counted(track, &asked)
				feed(up, packet(1, 0, keyPayload))
				time.Sleep(c.age)
				var all []*fakeSender
				for range 100 {
					l, d := down(track)
					add(t, track, d)
					all = append(all, l)
				}
				time.Sleep(100 * time.Millisecond)
				feed(up, packet(2, 90000, keyPayload))
				time.Sleep(time.Second)
				for _, l := range all {
					if l.sent[len(l.sent)-1].Timestamp != 90000 || len(l.sent) != 2-c.want {
						t.Fatalf("one viewer got %v", l.sent)
					}
				}
				if asked != c.want {
					t.Errorf("requested %d keyframes, want %d", asked, c.want)
				}
			})
		})
	}
}

// A viewer whose turn comes too late waits for a keyframe instead.
func TestJoinerOfABusyNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		track, asked := vp8Track(), 0
		up := counted(track, &asked)
		fill(up, 100)
		slow, d := &slowSender{open: make(chan struct{})}, NewDownTrack(track)
		d.Bind(Binding{Sender: slow, SSRC: 1, PayloadType: 96})
		add(t, track, d)
		synctest.Wait()
		l, e := down(track)
		add(t, track, e)
		time.Sleep(catchUpTime + time.Millisecond)
		close(slow.open)
		track.Settle()
		if asked != 1 || len(l.sent) != 0 {
			t.Fatalf("requested %d keyframes, sent %d packets", asked, len(l.sent))
		}
		caught := len(slow.sent)
		feed(up, packet(100, 90000, deltaPayload))
		feed(up, packet(101, 93000, keyPayload))
		if len(l.sent) != 1 || len(slow.sent) != caught+1 || slow.sent[caught].SequenceNumber != slow.sent[caught-1].SequenceNumber+1 {
			t.Errorf("sent %v, and %v after %d", l.sent, slow.sent[caught:], caught)
		}
	})
}

// Audio, the far ends of links, and a far end that was sent to before join live;
// the last with a keyframe, and its numbering goes on.
func TestOthersJoinLive(t *testing.T) {
	audio := &Track{Codec: Codec{MimeType: "audio/opus", ClockRate: 48000}}
	for _, c := range []struct {
		name  string
		track *Track
		relay bool
		again bool
	}{
		{"audio", audio, false, false}, {"a link", vp8Track(), true, false}, {"a second time", vp8Track(), false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			up := c.track.Attach(never)
			l, d := down(c.track)
			d.Relay = c.relay
			if c.again {
				c.track.Add(d)
			}
			feed(up, packet(1, 0, keyPayload))
			c.track.Remove(d)
			feed(up, packet(2, 3000, keyPayload)) // not sent, and not missed
			add(t, c.track, d)
			feed(up, packet(3, 6000, deltaPayload))
			want := []uint16{3}
			if c.again {
				feed(up, packet(4, 9000, keyPayload))
				feed(up, packet(5, 12000, deltaPayload))
				want = []uint16{1, 2, 3}
			}
			if seqs, _ := l.sequence(); !slices.Equal(seqs, want) {
				t.Errorf("sent %v, want %v", seqs, want)
			}
		})
	}
}
