package rtc

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/sdp"
	"weir/sfu/srtp"
	"weir/sfu/udp"
)

// A fakeContext is what pion has negotiated for a track.
type fakeContext struct {
	codecs []webrtc.RTPCodecParameters
	exts   []webrtc.RTPHeaderExtensionParameter
}

func (c fakeContext) CodecParameters() []webrtc.RTPCodecParameters           { return c.codecs }
func (c fakeContext) HeaderExtensions() []webrtc.RTPHeaderExtensionParameter { return c.exts }
func (fakeContext) SSRC() webrtc.SSRC                                        { return 1 }
func (fakeContext) SSRCRetransmission() webrtc.SSRC                          { return 2 }
func (fakeContext) SSRCForwardErrorCorrection() webrtc.SSRC                  { return 0 }
func (fakeContext) WriteStream() webrtc.TrackLocalWriter                     { return nil }
func (fakeContext) ID() string                                               { return "" }
func (fakeContext) RTCPReader() interceptor.RTCPReader                       { return nil }

// What is sent again under its own number is the same packet, to the byte: AES-GCM
// must not authenticate two under one nonce. With RTX the packets are numbered
// and say their section.
func TestRepeatedPacketsAreTheSame(t *testing.T) {
	for _, c := range []struct {
		name string
		rtx  bool
	}{{"without RTX", false}, {"with RTX", true}} {
		t.Run(c.name, func(t *testing.T) {
			e := newTestEngine(t, "127.0.0.1:0")
			far, err := udp.Listen("127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			out := &outbound{engine: e}
			out.sealer.Store(srtp.NewSealer(bytes.Repeat([]byte{7}, 16), bytes.Repeat([]byte{8}, 12)))
			out.route.Store(&route{udp: far.LocalAddr().(*net.UDPAddr).AddrPort()})
			track := &forward.Track{ID: "video0", Codec: forward.Codec{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000}}
			up := track.Attach(asking(func() bool { return true }))
			l := &LocalTrack{DownTrack: forward.NewDownTrack(track), MID: "0", out: out, writeRTCP: func([]rtcp.Packet) error { return nil }}
			ctx := fakeContext{
				codecs: []webrtc.RTPCodecParameters{{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
					MimeType: webrtc.MimeTypeVP8, RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}},
				}}},
				exts: []webrtc.RTPHeaderExtensionParameter{{ID: 3, URI: psdp.TransportCCURI}, {ID: 4, URI: psdp.SDESMidURI}},
			}
			if c.rtx {
				ctx.codecs = append(ctx.codecs, webrtc.RTPCodecParameters{PayloadType: 97, RTPCodecCapability: webrtc.RTPCodecCapability{
					MimeType: webrtc.MimeTypeRTX, SDPFmtpLine: "apt=96",
				}})
			}
			if _, err := l.Bind(ctx); err != nil {
				t.Fatal(err)
			}
			track.Add(l.DownTrack)
			defer track.Remove(l.DownTrack)
			read := func() []byte {
				b := make([]byte, receiveMTU)
				n, _, err := far.ReadFromAddrPort(b)
				if err != nil {
					t.Fatal(err)
				}
				return b[:n]
			}
			var first []byte
			for i := range 100 { // more than say their section
				up.Forward(packet(uint16(i), uint32(i), keyPayload), time.Now())
				if b := read(); i == 0 {
					first = b
				}
			}
			l.RTCP([]rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: 1, Nacks: rtcp.NackPairsFromSequenceNumbers([]uint16{0})}}, time.Now())
			again := read()
			var h rtp.Header
			if _, err := h.Unmarshal(first); err != nil {
				t.Fatal(err)
			}
			if same := bytes.Equal(first, again); same == c.rtx || h.Extension != c.rtx {
				t.Errorf("the same packet again: %v; extensions: %v", same, h.Extension)
			}
		})
	}
}

// Redundant audio is sent again under its own number: a retransmission packet
// begins with a number, and not with blocks.
func TestRedundantAudioHasNoRetransmissionPackets(t *testing.T) {
	codecs := []webrtc.RTPCodecParameters{
		{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}}}},
		{PayloadType: 112, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeRTX, SDPFmtpLine: "apt=111"}},
	}
	for mime, want := range map[string]bool{webrtc.MimeTypeOpus: true, sdp.MimeRED: false} {
		track := &forward.Track{ID: "audio0", Codec: forward.Codec{MimeType: mime, ClockRate: 48000}}
		l := &LocalTrack{DownTrack: forward.NewDownTrack(track), PayloadType: 111, out: &outbound{}}
		if _, err := l.Bind(fakeContext{codecs: codecs}); err != nil {
			t.Fatal(err)
		}
		if l.Padded() != want {
			t.Errorf("%s sent as Opus has retransmission packets: %v", mime, l.Padded())
		}
	}
}
