package sfu

import (
	"bytes"
	"strings"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
	"weir/sfu/sdp"
)

// redundant are Opus as pt and redundant audio of it as as, preferred.
func redundant(as, pt webrtc.PayloadType, fmtp string) []webrtc.RTPCodecParameters {
	return []webrtc.RTPCodecParameters{param(sdp.MimeRED, as, fmtp), param(webrtc.MimeTypeOpus, pt, "minptime=10")}
}

// Redundant audio goes to who names it, under its payload types, and to others
// without the redundancy, at the publisher's node and at another one; Opus alone
// among it becomes a packet of one block.
func TestRedundantAudio(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	codecs := redundant(63, 111, "111/111")
	pub := plainPeer(t, codecs...)
	r := &raw{id: "t0", mime: sdp.MimeRED, pt: 63}
	tr, err := pub.AddTransceiverFromTrack(r, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.SetCodecPreferences(codecs); err != nil {
		t.Fatal(err)
	}
	answer := dialPeer(t, pub, a.web.URL+"/whip/s", nil)
	for _, want := range []string{" 63 111\r\n", "a=rtpmap:63 red/48000/2\r\n", "a=fmtp:63 111/111\r\n", "a=rtpmap:111 opus/48000/2\r\n"} {
		if !strings.Contains(answer, want) {
			t.Errorf("no %q in the publisher's answer\n%s", want, answer)
		}
	}
	n := byte(0)
	every(t, func() {
		n++
		as := func(pt uint8, payload ...byte) {
			r.mu.Lock()
			r.h.PayloadType = pt
			r.mu.Unlock()
			r.send(payload, false, 960)
		}
		if n%8 == 0 {
			as(111, 0xf8, n)
			return
		}
		// The block before, of two bytes, then this one.
		as(63, 0x80|111, 960>>6, 960<<2&0xff, 2, 111, 0xf8, n-1, 0xf8, n)
	})
	for _, c := range []struct {
		name    string
		codecs  []webrtc.RTPCodecParameters
		pt      uint8
		payload func(n byte) []byte
	}{
		{"of the same types", redundant(63, 111, "111/111"), 63, func(n byte) []byte {
			if n%8 == 0 {
				return []byte{111, 0xf8, n}
			}
			return []byte{0x80 | 111, 960 >> 6, 960 << 2 & 0xff, 2, 111, 0xf8, n - 1, 0xf8, n}
		}},
		{"of other types", redundant(101, 100, "100/100"), 101, func(n byte) []byte {
			if n%8 == 0 {
				return []byte{100, 0xf8, n}
			}
			return []byte{0x80 | 100, 960 >> 6, 960 << 2 & 0xff, 2, 100, 0xf8, n - 1, 0xf8, n}
		}},
		{"Opus alone", []webrtc.RTPCodecParameters{param(webrtc.MimeTypeOpus, 96, "")}, 96, func(n byte) []byte { return []byte{0xf8, n} }},
		{"redundancy of what is not offered", []webrtc.RTPCodecParameters{param(sdp.MimeRED, 63, "97/97"), param(webrtc.MimeTypeOpus, 96, "")}, 96, func(n byte) []byte { return []byte{0xf8, n} }},
	} {
		for _, node := range []*meshNode{a, b} {
			pc := plainPeer(t, c.codecs...)
			packets := incoming(t, pc, webrtc.RTPCodecTypeAudio)
			dialPeer(t, pc, node.web.URL+"/whep/s", nil)
			var last *rtp.Packet
			for range 20 {
				p := next(t, packets)
				if n := p.Payload[len(p.Payload)-1]; p.PayloadType != c.pt || !bytes.Equal(p.Payload, c.payload(n)) {
					t.Fatalf("%s: % x as payload type %d, want % x as %d", c.name, p.Payload, p.PayloadType, c.payload(n), c.pt)
				}
				if last != nil && p.SequenceNumber != last.SequenceNumber+1 {
					t.Errorf("%s: packet %d after %d", c.name, p.SequenceNumber, last.SequenceNumber)
				}
				last = p
			}
			_ = pc.GracefulClose()
		}
	}
}
