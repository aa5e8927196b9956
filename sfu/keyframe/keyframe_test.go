package keyframe

import (
	"bytes"
	"testing"

	"github.com/pion/rtp/codecs"
)

func TestIs(t *testing.T) {
	for _, c := range []struct {
		name    string
		mime    string
		payload []byte
		want    bool
	}{
		{"VP8: plain descriptor, key", "video/VP8", []byte{0x10, 0x00, 0x9d, 0x01, 0x2a}, true},
		{"VP8: the codec's name has no case", "VIDEO/vp8", []byte{0x10, 0x00}, true},
		{"VP8: inter frame", "video/VP8", []byte{0x10, 0x01}, false},
		{"VP8: 15-bit picture ID, key", "video/VP8", []byte{0x90, 0x80, 0x81, 0x02, 0x10}, true},
		{"VP8: 7-bit picture ID, key", "video/VP8", []byte{0x90, 0x80, 0x01, 0x10}, true},
		{"VP8: every extension present, key", "video/VP8", []byte{0x90, 0xf0, 0x81, 0x02, 0x07, 0x20, 0x10}, true},
		{"VP8: every extension present, inter", "video/VP8", []byte{0x90, 0xf0, 0x81, 0x02, 0x07, 0x20, 0x11}, false},
		{"VP8: not the start of a partition", "video/VP8", []byte{0x00, 0x00}, false},
		{"VP8: start of the second partition", "video/VP8", []byte{0x11, 0x00}, false},
		{"VP8: cut within the descriptor", "video/VP8", []byte{0x90, 0xf0, 0x81}, false},
		{"VP8: descriptor without a payload", "video/VP8", []byte{0x10}, false},
		{"VP8: padding only", "video/VP8", nil, false},

		{"VP9: not predicted, begins a frame", "video/VP9", []byte{0x88, 0x01, 0x82}, true},
		{"VP9: predicted", "video/VP9", []byte{0xc8, 0x01, 0x86}, false},
		{"VP9: not the first packet", "video/VP9", []byte{0x84, 0x01, 0x82}, false},
		{"VP9: higher spatial layer of a key picture", "video/VP9", []byte{0xa8, 0x01, 0x03, 0x00, 0x82}, false},
		{"VP9: lowest spatial layer of a key picture", "video/VP9", []byte{0xa8, 0x01, 0x00, 0x00, 0x82}, true},
		{"VP9: flexible, P forgotten, header says inter", "video/VP9", []byte{0x98, 0x80, 0x01, 0x86}, false},
		{"VP9: flexible, header says key", "video/VP9", []byte{0x98, 0x80, 0x01, 0x82}, true},
		{"VP9: flexible, profile 3 inter", "video/VP9", []byte{0x98, 0x80, 0x01, 0xb2}, false},
		{"VP9: flexible, profile 3 key", "video/VP9", []byte{0x98, 0x80, 0x01, 0xb0}, true},
		{"VP9: flexible, encrypted frame", "video/VP9", []byte{0x98, 0x80, 0x01, 0x36}, true},
		{"VP9: cut within the picture ID", "video/VP9", []byte{0x88}, false},
		{"VP9: empty", "video/VP9", []byte{}, false},

		{"H264: SPS", "video/H264", []byte{0x67, 0x42}, true},
		{"H264: IDR, first slice", "video/H264", []byte{0x65, 0x88}, true},
		{"H264: IDR, later slice", "video/H264", []byte{0x65, 0x40}, false},
		{"H264: inter slice", "video/H264", []byte{0x41, 0x9a}, false},
		{"H264: PPS alone", "video/H264", []byte{0x68, 0xce}, false},
		{"H264: STAP-A of AUD, SPS", "video/H264", []byte{0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x67, 0x42}, true},
		{"H264: STAP-A of inter slices", "video/H264", []byte{0x78, 0, 2, 0x41, 0x9a, 0, 2, 0x41, 0x9a}, false},
		{"H264: STAP-A with a size past its end", "video/H264", []byte{0x78, 0, 9, 0x67, 0x42}, false},
		{"H264: STAP-A with an empty unit first", "video/H264", []byte{0x78, 0, 0, 0, 2, 0x67, 0x42}, true},
		{"H264: STAP-B", "video/H264", []byte{0x79, 0, 1, 0, 2, 0x67, 0x42}, true},
		{"H264: MTAP16", "video/H264", []byte{0x7a, 0, 1, 0, 2, 9, 0, 0, 0x67, 0x42}, true},
		{"H264: MTAP24", "video/H264", []byte{0x7b, 0, 1, 0, 2, 9, 0, 0, 0, 0x67, 0x42}, true},
		{"H264: FU-A, start of IDR", "video/H264", []byte{0x7c, 0x85, 0x88}, true},
		{"H264: FU-A, middle of IDR", "video/H264", []byte{0x7c, 0x05, 0x88}, false},
		{"H264: FU-A, start of inter slice", "video/H264", []byte{0x7c, 0x81, 0x9a}, false},
		{"H264: FU-B, start of IDR", "video/H264", []byte{0x7d, 0x85, 0, 1, 0x88}, true},
		{"H264: one byte", "video/H264", []byte{0x67}, false},

		{"H265: VPS", "video/H265", []byte{0x40, 0x01, 0x0c}, true},
		{"H265: SPS", "video/h265", []byte{0x42, 0x01, 0x01}, true},
		{"H265: PPS alone", "video/H265", []byte{0x44, 0x01, 0xc1}, false},
		{"H265: IDR_W_RADL, first slice", "video/H265", []byte{0x26, 0x01, 0xaf}, true},
		{"H265: IDR_N_LP, first slice", "video/H265", []byte{0x28, 0x01, 0xaf}, true},
		{"H265: CRA, first slice", "video/H265", []byte{0x2a, 0x01, 0xaf}, true},
		{"H265: BLA_W_LP, first slice", "video/H265", []byte{0x20, 0x01, 0xaf}, true},
		{"H265: BLA_N_LP, first slice", "video/H265", []byte{0x24, 0x01, 0xaf}, true},
		{"H265: IDR, later slice", "video/H265", []byte{0x26, 0x01, 0x2f}, false},
		{"H265: TRAIL_R", "video/H265", []byte{0x02, 0x01, 0xd0}, false},
		{"H265: RASL_N", "video/H265", []byte{0x10, 0x01, 0xd0}, false},
		{"H265: aggregate of VPS, SPS, PPS", "video/H265", []byte{0x60, 0x01, 0, 3, 0x40, 1, 0x0c, 0, 3, 0x42, 1, 1, 0, 3, 0x44, 1, 0xc1}, true},
		{"H265: aggregate of AUD and IDR", "video/H265", []byte{0x60, 0x01, 0, 3, 0x46, 1, 0x50, 0, 3, 0x26, 1, 0xaf}, true},
		{"H265: aggregate of others", "video/H265", []byte{0x60, 0x01, 0, 3, 0x46, 1, 0x50, 0, 3, 0x02, 1, 0xd0}, false},
		{"H265: aggregate with a size past its end", "video/H265", []byte{0x60, 0x01, 0, 9, 0x42, 1, 1}, false},
		{"H265: fragment, start of IDR", "video/H265", []byte{0x62, 0x01, 0x93, 0xaf}, true},
		{"H265: fragment, middle of IDR", "video/H265", []byte{0x62, 0x01, 0x13, 0xaf}, false},
		{"H265: fragment, start of a later slice of IDR", "video/H265", []byte{0x62, 0x01, 0x93, 0x2f}, false},
		{"H265: fragment, start of TRAIL_R", "video/H265", []byte{0x62, 0x01, 0x81, 0xd0}, false},
		{"H265: fragment of nothing", "video/H265", []byte{0x62, 0x01, 0x93}, false},
		{"H265: a header alone", "video/H265", []byte{0x42, 0x01}, false},

		{"AV1: N bit", "video/AV1", []byte{0x18, 0x08, 0x00}, true},
		{"AV1: continued OBU", "video/AV1", []byte{0x98, 0x08, 0x00}, false},
		{"AV1: frame alone", "video/AV1", []byte{0x10, 0x30, 0x10}, false},
		{"AV1: N forgotten, sequence header then key frame", "video/AV1", []byte{0x20, 0x02, 0x08, 0x00, 0x30, 0x10}, true},
		{"AV1: N forgotten, sequence header then inter frame", "video/AV1", []byte{0x20, 0x02, 0x08, 0x00, 0x30, 0x30}, false},
		{"AV1: N forgotten, lengths on every OBU", "video/AV1", []byte{0x00, 0x02, 0x08, 0x00, 0x02, 0x30, 0x10}, true},
		{"AV1: obu_size kept and extension", "video/AV1", []byte{0x20, 0x03, 0x0a, 0x01, 0x00, 0x36, 0x00, 0x01, 0x10}, true},
		{"AV1: OBU longer than the packet", "video/AV1", []byte{0x20, 0x7f, 0x08}, false},
		{"AV1: sequence header alone", "video/AV1", []byte{0x10, 0x08, 0x00}, false},
		{"AV1: aggregation header alone", "video/AV1", []byte{0x08}, false},

		{"audio has no keyframes", "audio/opus", []byte{0x10, 0x00}, false},
		{"unknown codec", "video/H266", []byte{0x42, 0x01, 0x80}, false},
	} {
		if got := Is(c.mime, c.payload); got != c.want {
			t.Errorf("%s: Is(%q, %x) = %v, want %v", c.name, c.mime, c.payload, got, c.want)
		}
	}
}

// The forwarder calls Is for every packet of every track.
func TestIsAllocatesNothing(t *testing.T) {
	payload := []byte{0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x67, 0x42}
	if n := testing.AllocsPerRun(100, func() { Is("video/h264", payload) }); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

// A keyframe packetised by pion must be found in its first packet and in no
// other: the forwarder inspects what the publisher sends.
func TestIsFindsExactlyTheFirstPacket(t *testing.T) {
	body := bytes.Repeat([]byte{0xa5}, 5000)
	vp9Key := []byte{0x82, 0x49, 0x83, 0x42, 0x20, 0x27, 0xf0, 0x16, 0x70}
	for _, c := range []struct {
		name, mime string
		payloads   [][]byte
	}{
		{"VP8", "video/VP8", (&codecs.VP8Payloader{EnablePictureID: true}).Payload(1200, append([]byte{0x10, 0, 0, 0x9d, 1, 0x2a}, body...))},
		{"VP9", "video/VP9", (&codecs.VP9Payloader{}).Payload(1200, append(vp9Key, body...))},
		{"VP9 flexible", "video/VP9", (&codecs.VP9Payloader{FlexibleMode: true}).Payload(1200, append(vp9Key, body...))},
		{"H264", "video/H264", (&codecs.H264Payloader{}).Payload(1200, append([]byte{0, 0, 0, 1, 0x65, 0x88}, body...))},
		{"H265", "video/H265", (&codecs.H265Payloader{}).Payload(1200, append([]byte{0, 0, 0, 1, 0x26, 0x01, 0xaf}, body...))},
		{"AV1", "video/AV1", (&codecs.AV1Payloader{}).Payload(1200, append([]byte{0x0a, 0x02, 0x00, 0x00, 0x30, 0x10}, body...))},
	} {
		if len(c.payloads) < 4 {
			t.Fatalf("%s: %d packets, want a fragmented frame", c.name, len(c.payloads))
		}
		for i, p := range c.payloads {
			if got := Is(c.mime, p); got != (i == 0) {
				t.Errorf("%s: packet %d of %d: Is = %v", c.name, i, len(c.payloads), got)
			}
		}
	}
}

func FuzzIs(f *testing.F) {
	mimes := []string{"video/VP8", "video/VP9", "video/H264", "video/AV1", "audio/opus", "video/H265"}
	for i := range mimes {
		f.Add(i, []byte{0x90, 0xf0, 0x81, 0x02, 0x07, 0x20, 0x10})
		f.Add(i, []byte{0x78, 0, 2, 0x09, 0xf0, 0, 2, 0x67, 0x42})
		f.Add(i, []byte{0x20, 0x03, 0x0a, 0x01, 0x00, 0x36, 0x00, 0x01, 0x10})
		f.Add(i, []byte{0x60, 0x01, 0, 3, 0x46, 1, 0x50, 0, 3, 0x26, 1, 0xaf})
		f.Add(i, []byte{})
	}
	f.Fuzz(func(t *testing.T, which int, payload []byte) {
		mime := mimes[uint(which)%uint(len(mimes))]
		before := bytes.Clone(payload)
		is := Is(mime, payload)
		if is && len(payload) < 2 {
			t.Errorf("a keyframe in %d bytes", len(payload))
		}
		if !bytes.Equal(before, payload) {
			t.Error("payload changed")
		}
	})
}
