package forward

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"

	"weir/sfu/layer"
)

// A ringBench puts packets of one source into a ring.
type ringBench struct {
	ring
	from *source
	now  time.Time
}

func newRingBench() *ringBench {
	return &ringBench{from: newSource(&UpTrack{track: &Track{}}, map[uint8]string{3: extCaptureTime}), now: time.Unix(1_000_000, 0)}
}

func (b *ringBench) add(seq uint16, size int) (kept, bool) {
	return b.put(b.from, packet(seq, uint32(seq), bytes.Repeat([]byte{byte(seq)}, size)), layer.Info{}, false, b.now)
}

// count returns how many packets are kept, and their bytes.
func (b *ringBench) count() (packets, size int) {
	for _, k := range b.slots {
		if k.position != 0 {
			packets++
			size += len(k.data)
		}
	}
	return packets, size
}

// What is kept is bounded in time, in bytes and in number.
func TestRingIsBounded(t *testing.T) {
	for _, c := range []struct {
		name           string
		size           int
		every          time.Duration
		packets, bytes int // the most
	}{
		{"a call is bounded by time", 120, 20 * time.Millisecond, int(ringTime/(20*time.Millisecond)) + 1, 1 << 20},
		{"large packets by bytes", 1400, 100 * time.Microsecond, ringBytes/1400 + 2, ringBytes + 2*1400},
		{"small packets by number", 40, 10 * time.Microsecond, ringPackets, 1 << 20},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newRingBench()
			for i := range 100_000 {
				if _, ok := b.add(uint16(i), c.size); !ok {
					t.Fatalf("packet %d was refused", i)
				}
				b.now = b.now.Add(c.every)
			}
			packets, size := b.count()
			if packets > c.packets || size > c.bytes || size != b.bytes {
				t.Errorf("%d packets of %d bytes are kept (%d counted), want at most %d of %d", packets, size, b.bytes, c.packets, c.bytes)
			}
			if packets < c.packets*9/10 {
				t.Errorf("%d packets are kept, though %d may be", packets, c.packets)
			}
		})
	}
}

// Of one number one packet is kept, whenever it comes; and what comes late, as
// long as there is room for it.
func TestRingTakesEachNumberOnce(t *testing.T) {
	b := newRingBench()
	for _, c := range []struct {
		name string
		seq  uint16
		want bool
	}{
		{"the first", 65534, true}, {"the same again", 65534, false}, {"after a gap", 2, true}, {"late", 0, true}, {"late again", 0, false},
		{"from before the first", 65530, false},
	} {
		k, ok := b.add(c.seq, 9)
		if ok != c.want {
			t.Errorf("%s: taken %v, want %v", c.name, ok, c.want)
		}
		if got, here := b.get(b.from, k.position); ok && (!here || got.seq != c.seq || got.payload()[0] != byte(c.seq)) {
			t.Errorf("%s: got %+v", c.name, got)
		}
	}
	other := newSource(&UpTrack{track: &Track{}}, nil)
	k, _ := b.put(other, packet(65534, 7, []byte{1}), layer.Info{}, false, b.now)
	if last, _ := b.add(3, 9); k.position <= ringPackets || last.position != k.position+1 {
		t.Errorf("sources follow each other at %d and %d", k.position, last.position)
	}
	if _, here := b.get(b.from, k.position); here {
		t.Error("a packet is found as another source's")
	}
}

// Numbers that jump cost no more than numbers that do not, and harm nobody.
func TestRingBearsJumps(t *testing.T) {
	b := newRingBench()
	for i := range 200 {
		k, ok := b.add(uint16(i*32767), 1000)
		if _, here := b.get(b.from, k.position); !ok || !here {
			t.Fatalf("jump %d: taken %v, kept %v", i, ok, here)
		}
	}
	if len(b.slots) > ringPackets {
		t.Errorf("%d slots", len(b.slots))
	}
}

// A packet that somebody holds stays as it is when the ring has gone on.
func TestKeptPacketsDoNotChange(t *testing.T) {
	b := newRingBench()
	p := packet(1, 0, []byte("payload"))
	if err := p.SetExtension(3, []byte("captured")); err != nil {
		t.Fatal(err)
	}
	k, _ := b.put(b.from, p, layer.Info{}, false, b.now)
	copy(p.Payload, "changed")
	for i := range 20_000 {
		b.add(uint16(2+i), 1000)
	}
	if string(k.payload()) != "payload" || string(k.data[2:k.extended]) != "captured" {
		t.Errorf("got %q with %q", k.payload(), k.data[:k.extended])
	}
}

// A DownTrack answers requests for packets of the source before, and of the
// time before it followed another, and for nothing that it has not sent.
func TestRepairAcrossSources(t *testing.T) {
	track := vp8Track()
	up := track.Attach(never)
	l, d := &fakeSender{}, NewDownTrack(track)
	d.Bind(Binding{Sender: l, SSRC: 1, PayloadType: 96, Repair: true})
	feed(up, packet(1000, 0, deltaPayload)) // before d
	add(t, track, d)
	for i := range uint16(3) { // our 1001–1002, 1003–1004, 1005–1006
		for j := range uint16(2) {
			feed(up, packet(1001+i*500+j, uint32(j), keyPayload))
		}
		up = track.Attach(never)
	}
	sent := l.sent
	if len(sent) != 6 || sent[5].SequenceNumber != 1006 {
		t.Fatalf("sent %v", sent)
	}
	l.sent = nil
	nack(d, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 5)
	if len(l.sent) != len(sent) {
		t.Fatalf("%d packets were sent again, want %d", len(l.sent), len(sent))
	}
	for i, p := range l.sent {
		want, _ := sent[i].Marshal()
		if got, _ := p.Marshal(); !bytes.Equal(got, want) {
			t.Errorf("sent %v again as %v", sent[i], p)
		}
	}
}

// A viewer that is added costs no copy of what the track has.
func TestMemoryOfAViewer(t *testing.T) {
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	const viewers = 50
	track := vp8Track()
	up := track.Attach(never)
	p := packet(0, 0, append(bytes.Clone(keyPayload), make([]byte, 1100)...))
	pass := func() {
		for range 2 * ringPackets {
			p.SequenceNumber++
			feed(up, p)
		}
	}
	pass()
	before := heap()
	for range viewers {
		d := NewDownTrack(track)
		d.Bind(Binding{Sender: discard{}, SSRC: 1, PayloadType: 96, Repair: true})
		add(t, track, d)
	}
	pass()
	each := (heap() - before) / viewers
	t.Logf("%d bytes a viewer", each)
	if each > 8<<10 {
		t.Errorf("%d bytes a viewer: it has a copy of its own", each)
	}
	runtime.KeepAlive(track)
}

// A blockedSender waits in its first write.
type blockedSender struct {
	discard
	once          sync.Once
	entered, open chan struct{}
}

func (b *blockedSender) WriteRTP(*rtp.Header, []byte) (int, error) {
	b.once.Do(func() {
		close(b.entered)
		<-b.open
	})
	return 0, nil
}

// While one DownTrack is stuck in a write, others are repaired, added and
// removed: no lock is shared.
func TestStuckDownTrackHoldsNoLock(t *testing.T) {
	track := vp8Track()
	up := track.Attach(never)
	l, d := &fakeSender{}, NewDownTrack(track)
	d.Bind(Binding{Sender: l, SSRC: 1, PayloadType: 96, Repair: true})
	add(t, track, d)
	stuck, other := &blockedSender{entered: make(chan struct{}), open: make(chan struct{})}, NewDownTrack(track)
	other.Bind(Binding{Sender: stuck, SSRC: 2, PayloadType: 96})
	add(t, track, other)
	done := make(chan struct{})
	go func() {
		defer close(done)
		feed(up, packet(1, 0, keyPayload))
	}()
	<-stuck.entered
	nack(d, 1)
	add(t, track, NewDownTrack(track))
	track.Remove(d)
	if len(l.sent) != 2 {
		t.Errorf("sent %d packets, want one and its repair", len(l.sent))
	}
	close(stuck.open)
	<-done
}
