package paramsets

import (
	"slices"
	"testing"

	"github.com/pion/rtp"
)

var (
	testSPS = []byte{0x67, 0x42, 0xe0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec, 0x40}
	testPPS = []byte{0x68, 0xce, 0x3c, 0x80}
)

const testSprop = "Z0LgH9oBQBbsQA==,aM48gA=="

// packet makes a packet of one source.
func packet(seq uint16, stamp uint32, payload []byte) *rtp.Packet {
	return &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: seq, Timestamp: stamp, SSRC: 1}, Payload: payload}
}

// pass passes packets to s and returns the numbers of its output; numbers of
// inserted sets are negative.
func pass(s *Sets, source any, packets ...*rtp.Packet) []int {
	var out []int
	for _, p := range packets {
		for _, put := range s.Before(source, p) {
			out = append(out, -int(put.SequenceNumber))
		}
		out = append(out, int(p.SequenceNumber))
	}
	return out
}

func TestParameterSetsGoBeforeKeyframes(t *testing.T) {
	idr, delta := []byte{0x65, 0x88}, []byte{0x61, 0x88}
	start, middle := []byte{0x7c, 0x85, 1}, []byte{0x7c, 0x05, 1}
	stap := append([]byte{0x78, 0, byte(len(testSPS))}, testSPS...)
	stap = append(append(stap, 0, byte(len(testPPS))), testPPS...)
	pkt := packet
	for _, c := range []struct {
		name    string
		packets []*rtp.Packet
		want    []int
	}{
		{"nothing before others", []*rtp.Packet{pkt(10, 0, delta), pkt(11, 1, delta)}, []int{10, 11}},
		{"two before a keyframe", []*rtp.Packet{pkt(10, 0, delta), pkt(11, 1, idr), pkt(12, 2, delta), pkt(13, 3, idr)}, []int{10, -11, -12, 13, 14, -15, -16, 17}},
		{"once for a frame of several slices", []*rtp.Packet{pkt(10, 0, idr), pkt(11, 0, idr), pkt(12, 0, idr)}, []int{-10, -11, 12, 13, 14}},
		{"before the first fragment only", []*rtp.Packet{pkt(10, 0, start), pkt(11, 0, middle)}, []int{-10, -11, 12, 13}},
		{"late ones keep the numbers that were left for them", []*rtp.Packet{pkt(9, 0, delta), pkt(11, 2, idr), pkt(10, 1, delta), pkt(12, 3, delta)}, []int{9, -11, -12, 13, 10, 14}},
		{"not before a late keyframe", []*rtp.Packet{pkt(10, 0, delta), pkt(12, 2, delta), pkt(11, 1, idr)}, []int{10, 12, 11}},
		{"not where the stream has them", []*rtp.Packet{pkt(10, 0, testSPS), pkt(11, 0, testPPS), pkt(12, 0, idr), pkt(13, 1, idr)}, []int{10, 11, 12, -13, -14, 15}},
		{"nor in one packet", []*rtp.Packet{pkt(10, 0, stap), pkt(11, 0, idr)}, []int{10, 11}},
		{"no more once the stream has others", []*rtp.Packet{pkt(10, 0, idr), pkt(11, 1, []byte{0x67, 0x64, 0, 0x1f}), pkt(12, 1, idr), pkt(13, 2, idr)}, []int{-10, -11, 12, 13, 14, 15}},
		{"over the end of the numbers", []*rtp.Packet{pkt(65535, 0, idr), pkt(0, 1, delta)}, []int{-65535, 0, 1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := pass(Parse("video/H264", testSprop), new(int), c.packets...)
			if len(got) != len(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for i := range got {
				if got[i] != c.want[i] {
					t.Fatalf("got %v, want %v", got, c.want)
				}
			}
		})
	}
	t.Run("another source has other numbers", func(t *testing.T) {
		s := Parse("video/H264", testSprop)
		pass(s, new(int), packet(10, 0, idr))
		if got := pass(s, new(int), packet(500, 7, delta), packet(501, 8, idr)); got[0] != 500 || got[1] != -501 {
			t.Errorf("got %v", got)
		}
	})
	t.Run("numbers go on long after a keyframe", func(t *testing.T) {
		s, source := Parse("video/H264", testSprop), new(int)
		pass(s, source, packet(10, 0, idr))
		for i := range uint16(65535) {
			seq := 11 + i
			if got := pass(s, source, packet(seq, uint32(i)+1, delta)); got[0] != int(seq+2) {
				t.Fatalf("%d packets after it, %d became %d", i, seq, got[0])
			}
		}
		if got := pass(s, source, packet(10, 1<<20, idr), packet(9, 1<<20-1, delta)); !slices.Equal(got, []int{-12, -13, 14, 11}) {
			t.Errorf("at the next keyframe: %v", got)
		}
	})
	t.Run("the profile is that of the sets", func(t *testing.T) {
		if p := Parse("video/H264", testSprop).Profile(); p != "42e01f" {
			t.Errorf("got %q", p)
		}
	})
	for _, none := range []string{"", "x", "aM48gA==", ",", "Zw=="} {
		if Parse("video/H264", none) != nil {
			t.Errorf("%q is taken for parameter sets", none)
		}
	}
}

// The sets of H265 are three kinds, which may come in any order.
func TestParameterSetsOfH265(t *testing.T) {
	const sprop = "RAHBcrRiQA==,QAEMAf//,QgEBAWAAAAMA"
	idr, cra, delta := []byte{0x26, 1, 0xaf}, []byte{0x2a, 1, 0xaf}, []byte{0x02, 1, 0xd0}
	start, middle := []byte{0x62, 1, 0x93, 0xaf}, []byte{0x62, 1, 0x13, 0xaf}
	own := []byte{0x40, 1, 0x0c, 1, 0xff, 0xff}
	for _, c := range []struct {
		name    string
		packets []*rtp.Packet
		want    []int
	}{
		{"three before a keyframe", []*rtp.Packet{packet(10, 0, delta), packet(11, 1, idr), packet(12, 2, delta), packet(13, 3, cra)}, []int{10, -11, -12, -13, 14, 15, -16, -17, -18, 19}},
		{"before the first fragment only", []*rtp.Packet{packet(10, 0, start), packet(11, 0, middle)}, []int{-10, -11, -12, 13, 14}},
		{"not where the stream has them", []*rtp.Packet{packet(10, 0, own), packet(11, 0, idr)}, []int{10, 11}},
		{"no more once the stream has others", []*rtp.Packet{packet(10, 0, []byte{0x42, 1, 9}), packet(11, 1, idr)}, []int{10, 11}},
	} {
		s := Parse("video/H265", sprop)
		if got := pass(s, new(int), c.packets...); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, got, c.want)
		}
	}
	put := Parse("video/H265", sprop).Before(new(int), packet(10, 0, idr))
	for i, first := range []byte{0x40, 0x42, 0x44} { // VPS, SPS, PPS
		if put[i].Payload[0] != first {
			t.Errorf("set %d begins with %#x, want %#x", i, put[i].Payload[0], first)
		}
	}
	for _, none := range []string{"", "QAEMAf//", "RAHBcrRiQA=="} {
		if Parse("video/H265", none) != nil {
			t.Errorf("%q is taken for parameter sets", none)
		}
	}
}

// No offer and no packet makes it fail, and it inserts only sets that it has.
func FuzzParameterSets(f *testing.F) {
	f.Add("video/H264", testSprop, []byte{0x65, 0x88, 0x78, 0, 2, 0x65, 1}, uint16(1))
	f.Add("video/H265", "QAEM,QgEB,RAHB", []byte{0x26, 1, 0xaf, 0x60, 1, 0, 3, 0x26, 1, 0xaf}, uint16(1))
	f.Fuzz(func(t *testing.T, mime, sprop string, payload []byte, seq uint16) {
		s := Parse(mime, sprop)
		if s == nil {
			return
		}
		src := new(int)
		for i := range payload {
			if put := s.Before(src, packet(seq+uint16(i), uint32(i/2), payload[i:])); len(put) > maxSets {
				t.Fatalf("%d packets were put in", len(put))
			}
		}
	})
}
