package sfu

import (
	"bytes"
	"testing"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
)

// strange are packets of VP8 that a publisher could send after h, of its section
// or of none.
func strange(h rtp.Header, n byte) []*rtp.Packet {
	key := []byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, n}
	make := func(payload []byte, change func(*rtp.Packet)) *rtp.Packet {
		p := &rtp.Packet{Header: h.Clone(), Payload: payload}
		change(p)
		return p
	}
	extended := func(profile uint16, id uint8, size int) func(*rtp.Packet) {
		return func(p *rtp.Packet) {
			p.Extension, p.ExtensionProfile = true, profile
			_ = p.SetExtension(id, bytes.Repeat([]byte{n}, size)) // else without
		}
	}
	return []*rtp.Packet{
		make(key, func(*rtp.Packet) {}),
		make(nil, func(*rtp.Packet) {}),
		make([]byte{0}, func(p *rtp.Packet) { p.Padding, p.PaddingSize = true, 255 }),
		make(nil, func(p *rtp.Packet) { p.Padding, p.PaddingSize = true, 200 }),
		make(key, func(p *rtp.Packet) { p.CSRC = []uint32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} }),
		make(key, extended(0xbede, 14, 16)),
		make(key, extended(0x1000, 255, 255)),
		make(key, extended(0x1234, 0, 400)),
		make(key, func(p *rtp.Packet) { p.PayloadType = 127 }),
		make(key, func(p *rtp.Packet) { p.PayloadType = 111 }),
		make([]byte{n}, func(p *rtp.Packet) { p.PayloadType = 97 }), // as if sent again
		make(append([]byte{0, n}, key...), func(p *rtp.Packet) { p.PayloadType = 97 }),
		make(key, func(p *rtp.Packet) { p.SequenceNumber += 20_000 }),
		make(key, func(p *rtp.Packet) { p.SequenceNumber += 32_767 }),
		make(key, func(p *rtp.Packet) { p.Timestamp += 1 << 31 }),
		make(key, func(p *rtp.Packet) { p.SSRC = uint32(n) % 16 }), // of nobody, or of another session
		make(append(bytes.Clone(key), bytes.Repeat([]byte{n}, 1380)...), func(*rtp.Packet) {}),
		make(append(bytes.Clone(key), bytes.Repeat([]byte{n}, 8000)...), func(*rtp.Packet) {}),
		make(bytes.Repeat([]byte{0xff}, 900), func(*rtp.Packet) {}), // a descriptor without end
	}
}

// Whatever a publisher sends, in RTP and RTCP, others notice nothing of it, and
// its own viewers, here and at another node, go on being sent what is sound.
func TestStrangeMediaOfOnePublisher(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	a.publish("fair")
	fair, far := a.watch("fair"), b.watch("fair")

	vp8 := param(webrtc.MimeTypeVP8, 96, "")
	pub := plainPeer(t, vp8, webrtc.RTPCodecParameters{
		RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: "apt=96"}, PayloadType: 97,
	})
	r := &raw{id: "t0", mime: webrtc.MimeTypeVP8, pt: 96}
	if _, err := pub.AddTransceiverFromTrack(r, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
		t.Fatal(err)
	}
	dialPeer(t, pub, a.web.URL+"/whip/strange", nil)
	ssrc := uint32(r.h.SSRC)
	bad := &rawViewer{PeerConnection: pub}
	bad.video.Store(ssrc)
	bad.audio.Store(1)
	h, n := r.h, byte(0)
	every(t, func() {
		n++
		for i, p := range strange(h, n) {
			p.SequenceNumber, p.Timestamp = p.SequenceNumber+uint16(i), p.Timestamp+300*uint32(i)
			_, _ = r.w.WriteRTP(&p.Header, p.Payload) // a jumbo packet may not leave
			h.SequenceNumber = p.SequenceNumber
		}
		h.SequenceNumber, h.Timestamp = h.SequenceNumber+1, h.Timestamp+30_000
		for _, packets := range bad.nuisances() {
			_ = pub.WriteRTCP(packets)
		}
		_ = pub.WriteRTCP([]rtcp.Packet{&rtcp.SenderReport{SSRC: ssrc, NTPTime: uint64(n) << 56, RTPTime: ^uint32(0), PacketCount: uint32(n)}})
	})
	at, other := plainPeer(t, vp8), plainPeer(t, vp8)
	near, beyond := incoming(t, at, webrtc.RTPCodecTypeVideo), incoming(t, other, webrtc.RTPCodecTypeVideo)
	dialPeer(t, at, a.web.URL+"/whep/strange", nil)
	dialPeer(t, other, b.web.URL+"/whep/strange", nil)
	for range 50 {
		next(t, near)
		next(t, beyond)
	}
	flows(t, fair, 100)
	flows(t, far, 100)
	for name, v := range map[string]uint64{"at the node": fair.Stats().Lost, "at another": far.Stats().Lost} {
		if v != 0 {
			t.Errorf("%d packets of the fair stream are lost at a viewer %s", v, name)
		}
	}
	if a.Counts().Publishers != 2 || b.Counts().Viewers != 2 {
		t.Errorf("left are %+v and %+v", a.Counts(), b.Counts())
	}
}
