package rtc

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/transport/v4/packetio"
	"github.com/pion/webrtc/v4"

	"weir/sfu/srtp"
)

// All packets of a viewer's connection are numbered, whoever encrypts them, and
// its feedback yields an estimate.
func TestViewersFeedbackIsRead(t *testing.T) {
	for name, profile := range map[string]dtls.SRTPProtectionProfile{
		"sealed here": dtls.SRTP_AEAD_AES_128_GCM, "by pion": dtls.SRTP_AES128_CM_HMAC_SHA1_80,
	} {
		t.Run(name, func(t *testing.T) {
			v := newTestEngine(t, "127.0.0.1:0").view(t, func(s *webrtc.SettingEngine) {
				s.SetSRTPProtectionProfiles(profile)
			}, func(s string) string { return s }, webrtc.ConfigureTWCCSender)
			var id uint8
			for _, e := range v.GetTransceivers()[0].Receiver().GetParameters().HeaderExtensions {
				if e.URI == psdp.TransportCCURI {
					id = uint8(e.ID)
				}
			}
			first := v.pass()
			next, last := v.number(first, id)+1, first.SequenceNumber
			for tick := time.Tick(10 * time.Millisecond); !v.server.Congestion().Known; <-tick {
				p := v.pass()
				if number := v.number(p, id); number != next {
					t.Fatalf("number %d, want %d", number, next)
				}
				next, last = next+1, p.SequenceNumber
			}
			if s := v.server.Congestion(); s.Bitrate < 50_000 || s.Loss != 0 || s.RTT <= 0 || s.Target != 0 || s.Probing {
				t.Errorf("%+v", s)
			}
			for int64(next) < v.server.Traffic().Packets { // joining had sent more than was passed
				p := <-v.received
				next, last = v.number(p, id)+1, p.SequenceNumber
			}
			// Padding is numbered too, whoever else sends some, and is nothing new
			// to the viewer.
			if sent := v.server.outs[0].Pad(30); sent == 0 {
				t.Error("no padding was sent")
			}
			p := v.pass()
			for int16(p.SequenceNumber-last) <= 0 { // padding is of one packet or more
				p = v.pass()
			}
			if number := v.number(p, id); number <= next {
				t.Fatalf("number %d after padding, want more than %d", number, next)
			}
		})
	}
}

func (v *pionViewer) number(p rtp.Packet, id uint8) uint16 {
	v.t.Helper()
	value := p.GetExtension(id)
	if len(value) != 2 {
		v.t.Fatalf("extension %d of %v is %x", id, p, value)
	}
	return binary.BigEndian.Uint16(value)
}

// Feedback is taken under whatever SSRC it comes, and nothing else is; RTCP for
// an SSRC that nobody reads holds nothing up, and too many SSRCs end a session.
func TestFeedbackTap(t *testing.T) {
	c := &controller{since: time.Now()}
	heard, flooded := 0, 0
	c.heard, c.flooded = func() { heard++ }, func() { flooded++ }
	tap := c.buffer(packetio.RTCPBufferPacket, 7)
	marshal := func(p rtcp.Packet) []byte {
		b, err := p.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	remb := marshal(&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 600e3, SSRCs: []uint32{7}})
	pli := marshal(&rtcp.PictureLossIndication{MediaSSRC: 7})
	feedback := marshal(&rtcp.TransportLayerCC{Header: rtcp.Header{Count: rtcp.FormatTCC, Type: rtcp.TypeTransportSpecificFeedback, Length: 5}, PacketChunks: []rtcp.PacketStatusChunk{}})
	short := []byte{0x8f, 206, 0, 0}
	for _, b := range [][]byte{remb, pli, feedback, short} {
		if n, err := tap.Write(b); n != len(b) || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	}
	if s := c.estimator.Status(); heard != 2 || s.Bitrate != 600e3 {
		t.Errorf("heard %d times: %+v", heard, s)
	}
	buf := make([]byte, 100)
	for _, want := range [][]byte{pli, short} {
		if n, err := tap.Read(buf); err != nil || !bytes.Equal(buf[:n], want) {
			t.Errorf("Read = %x, %v, want %x", buf[:n], err, want)
		}
	}
	c.sendOnly = true
	for range maxStreams {
		if b := c.buffer(packetio.RTPBufferPacket, 8); b != (discard{}) {
			t.Fatalf("RTP of a viewer is kept in a %T", b)
		}
	}
	if flooded != 1 {
		t.Errorf("RTP has flooded %d times", flooded)
	}
	c.ssrcs.Store(1)
	for range maxStreams {
		c.buffer(packetio.RTCPBufferPacket, 7)
	}
	if flooded != 2 {
		t.Errorf("flooded %d times", flooded)
	}
}

// FuzzFeedbackTap feeds RTCP of a viewer.
func FuzzFeedbackTap(f *testing.F) {
	f.Add([]byte{0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 'R', 'E', 'M', 'B', 1, 0xff, 0xff, 0xff, 0, 0, 0, 7})
	f.Add([]byte{0x8f, 206, 0, 5, 0, 0, 0, 1, 0, 0, 0, 0, 'R', 'E', 'M', 'B', 0xff, 0, 0, 0, 0, 0, 0, 7})
	f.Add([]byte{0x8f, 205, 0, 5, 0, 0, 0, 5, 0, 0, 0, 1, 0, 0, 0, 3, 0, 0, 1, 0, 0x20, 3, 4, 4, 4, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c := &controller{since: time.Now()}
		for range 50 {
			c.estimator.Sent(c.now(), 1000)
		}
		c.feedback(b)
		if s := c.estimator.Status(); s.Known && (s.Bitrate < 50_000 || s.Bitrate > 200_000_000) {
			t.Fatalf("%+v", s)
		}
	})
}

// What numbering costs a packet that is sealed here.
func BenchmarkStamp(b *testing.B) {
	for name, id := range map[string]uint8{"none": 0, "numbered": 3} {
		b.Run(name, func(b *testing.B) {
			s, seal := stamp{control: &controller{since: time.Now()}, id: id}, srtp.NewSealer(make([]byte, 16), make([]byte, 12))
			p := packet(1, 0, make([]byte, 1100))
			to := make([]byte, 1300)
			var index srtp.Index
			b.ReportAllocs()
			for b.Loop() {
				p.SequenceNumber++
				p.Extension, p.Extensions = false, p.Extensions[:0]
				s.mark(&p.Header, p.Payload)
				if _, err := seal.Seal(to, &index, &p.Header, p.Payload); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
