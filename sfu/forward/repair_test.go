package forward

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"weir/sfu/forward/repair"
)

// A repairBench is one DownTrack, and the packets it sends.
type repairBench struct {
	*DownTrack
	up    *UpTrack
	sent  []rtp.Packet
	bytes int
}

func (b *repairBench) WriteRTP(h *rtp.Header, p []byte) (int, error) {
	b.sent = append(b.sent, rtp.Packet{Header: h.Clone(), Payload: bytes.Clone(p)})
	b.bytes += h.MarshalSize() + len(p)
	return len(p), nil
}

func (b *repairBench) WriteRTCP([]rtcp.Packet) error { return nil }

func newRepairBench(t *testing.T, rtx repair.RTX) *repairBench {
	track := vp8Track()
	b := &repairBench{DownTrack: NewDownTrack(track), up: track.Attach(never)}
	b.Relay, b.Repairs = true, &Repairs{}
	b.up.Extensions(map[uint8]string{3: extCaptureTime})
	b.Bind(Binding{Sender: b, SSRC: 1, PayloadType: 96, Extensions: map[string]uint8{extCaptureTime: 3}, Repair: true, RTX: rtx})
	add(t, track, b.DownTrack)
	return b
}

// send sends one packet of size bytes, and returns it.
func (b *repairBench) send(t *testing.T, seq uint16, size int) rtp.Packet {
	t.Helper()
	p := packet(seq, 3000*uint32(seq), bytes.Repeat([]byte{byte(seq)}, size))
	p.Marker = seq%3 == 0
	if err := p.SetExtension(3, []byte{byte(seq)}); err != nil {
		t.Fatal(err)
	}
	feed(b.up, p)
	return b.sent[len(b.sent)-1]
}

func (b *repairBench) ask(now time.Time, seqs ...uint16) (sent int) {
	before := len(b.sent)
	b.RTCP(nacks(1, seqs...), now)
	return len(b.sent) - before
}

// nacks makes RTCP that requests packets.
func nacks(ssrc uint32, seqs ...uint16) []rtcp.Packet {
	return []rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)}}
}

func TestRepairRepeatsWhatWasSent(t *testing.T) {
	b := newRepairBench(t, repair.RTX{})
	var want rtp.Packet
	for seq := uint16(65530); seq != 100; seq++ {
		if p := b.send(t, seq, 700); seq == 3 {
			want = p
		}
	}
	if n := b.ask(time.Now(), 3, 200, 65529); n != 1 {
		t.Fatalf("%d packets, want the one of three that was sent", n)
	}
	got := b.sent[len(b.sent)-1]
	a, _ := want.Marshal()
	c, _ := got.Marshal()
	if !bytes.Equal(a, c) {
		t.Errorf("sent %v again as %v", want, got)
	}
}

func TestRepairUsesRetransmissionPackets(t *testing.T) {
	b := newRepairBench(t, repair.RTX{SSRC: 7, PayloadType: 97})
	var want []rtp.Packet
	for seq := range uint16(50) {
		want = append(want, b.send(t, seq, 300))
	}
	if n := b.ask(time.Now(), 8, 9); n != 2 {
		t.Fatalf("%d packets, want 2", n)
	}
	for i, p := range b.sent[len(b.sent)-2:] {
		first := b.sent[len(b.sent)-2]
		original := want[8+i]
		if p.SSRC != 7 || p.PayloadType != 97 || p.SequenceNumber != first.SequenceNumber+uint16(i) ||
			binary.BigEndian.Uint16(p.Payload) != original.SequenceNumber || !bytes.Equal(p.Payload[2:], original.Payload) ||
			p.Timestamp != original.Timestamp || p.Marker != original.Marker || !bytes.Equal(p.GetExtension(3), original.GetExtension(3)) {
			t.Errorf("%v of %v", p, original)
		}
	}
}

// Whatever is requested, retransmissions are at most a share of the bytes sent.
func TestRepairIsBounded(t *testing.T) {
	b := newRepairBench(t, repair.RTX{})
	now := time.Now()
	original := 0
	for seq := range 20_000 {
		p := b.send(t, uint16(seq), 1000)
		original += p.MarshalSize()
		now = now.Add(4 * time.Millisecond)
		if seq%25 == 0 { // request all kept packets, ten times a second
			var all []uint16
			for i := range 1024 {
				all = append(all, uint16(seq-i))
			}
			b.ask(now, all...)
		}
	}
	again := b.bytes - original
	if again > original/repair.Share+repair.Start {
		t.Errorf("%d bytes were sent again of %d", again, original)
	}
	if again < original/repair.Share/2 {
		t.Errorf("only %d bytes were sent again of %d", again, original)
	}
	if sent, withheld := b.Repairs.Totals(); sent == 0 || withheld == 0 {
		t.Errorf("%d sent, %d withheld", sent, withheld)
	}
}

// A viewer that requests more packets than are sent to it, kept or not, is not
// served until it is sent more: looking for them costs time.
func TestRequestsAreBounded(t *testing.T) {
	b := newRepairBench(t, repair.RTX{})
	for seq := range uint16(10) {
		b.send(t, seq, 1000)
	}
	now := time.Now()
	for seq := range uint16(20_000) {
		b.ask(now, 20_000+seq)
	}
	if n := b.ask(now, 9); n != 0 {
		t.Error("served after 20,000 requests")
	}
	b.send(t, 10, 1000)
	if n := b.ask(now, 9); n != 1 {
		t.Error("not served, though a packet was sent since")
	}
}

// A loss of one packet in five, repairs included, is repaired, as the far end
// sends NACKs again every 100 ms.
func TestRepairSufficesForLoss(t *testing.T) {
	b := newRepairBench(t, repair.RTX{})
	now := time.Now()
	const maxAsked = 4
	missing := map[uint16]int{} // times requested
	gave := 0
	for i := range 10_000 {
		seq := uint16(i)
		b.send(t, seq, 1100)
		if i%5 == 0 {
			missing[seq] = 0
		}
		now = now.Add(2 * time.Millisecond)
		if i%50 != 49 {
			continue
		}
		for seq, n := range missing {
			if came := b.ask(now, seq); came == 1 && (int(seq)+n)%5 != 0 {
				delete(missing, seq)
			} else if missing[seq]++; missing[seq] > maxAsked {
				delete(missing, seq)
				gave++
			}
		}
	}
	if _, withheld := b.Repairs.Totals(); withheld > 0 || gave > 20 {
		t.Errorf("%d repairs were withheld, %d packets of 2,000 were given up", withheld, gave)
	}
}

// One packet is sent again a few times in all, and not twice within half a
// round trip.
func TestRepairOfOnePacket(t *testing.T) {
	b := newRepairBench(t, repair.RTX{})
	b.send(t, 9, 100)
	now := time.Now()
	b.up.SenderReport(&rtcp.SenderReport{NTPTime: 0x1122334455667788}, now)
	b.RTCP([]rtcp.Packet{&rtcp.ReceiverReport{Reports: []rtcp.ReceptionReport{
		{SSRC: 1, LastSenderReport: 0x33445566, Delay: 65536},
	}}}, now.Add(1100*time.Millisecond))
	if got := b.Sent().RTT; got != 100*time.Millisecond {
		t.Fatalf("measured a round trip of %v, want 100ms", got)
	}
	total := 0
	for range 1000 {
		total += b.ask(now, 9)
		now = now.Add(time.Millisecond)
	}
	if total != repair.Times {
		t.Errorf("sent again %d times in a second of asking, want %d", total, repair.Times)
	}
	b.send(t, 10, 100)
	first := b.ask(now, 10) + b.ask(now.Add(49*time.Millisecond), 10)
	second := b.ask(now.Add(50*time.Millisecond), 10)
	if first != 1 || second != 1 {
		t.Errorf("sent again %d times within half a round trip, and %d after", first, second)
	}
}
