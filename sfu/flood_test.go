package sfu

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
	"weir/sfu/client"
)

// A rawViewer is a viewer without manners: whoever holds it writes the RTCP.
type rawViewer struct {
	*webrtc.PeerConnection
	video, audio atomic.Uint32 // SSRCs; 0: nothing has come yet
	last         atomic.Uint32 // sequence number of video
}

func (n *meshNode) watchRaw(stream string) *rawViewer {
	t := n.mesh.t
	t.Helper()
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	media := &webrtc.MediaEngine{}
	if err := media.RegisterDefaultCodecs(); err != nil {
		t.Fatal(err)
	}
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(media)).NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		t.Fatal(err)
	}
	v := &rawViewer{PeerConnection: pc}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	pc.OnTrack(func(remote *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := remote.ReadRTP()
			if err != nil {
				return // ends with pc
			}
			if remote.Kind() == webrtc.RTPCodecTypeAudio {
				v.audio.Store(p.SSRC)
				continue
			}
			v.last.Store(uint32(p.SequenceNumber))
			v.video.Store(p.SSRC)
		}
	})
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			t.Fatal(err)
		}
	}
	negotiate(t, pc, n.web.URL+"/whep/"+stream)
	eventually(t, "audio and video at a raw viewer", func() bool { return v.video.Load() != 0 && v.audio.Load() != 0 })
	return v
}

// nuisances are RTCP that costs a naive server something, or breaks it.
func (v *rawViewer) nuisances() [][]rtcp.Packet {
	video, audio, last := v.video.Load(), v.audio.Load(), uint16(v.last.Load())
	var all []rtcp.NackPair // the last 1,020 packets, in 260 bytes
	for i := range uint16(60) {
		all = append(all, rtcp.NackPair{PacketID: last - 17*(i+1), LostPackets: 0xffff})
	}
	storm := []rtcp.Packet{&rtcp.TransportLayerNack{MediaSSRC: video, Nacks: all}, &rtcp.TransportLayerNack{MediaSSRC: audio, Nacks: all}}
	raw := func(b ...byte) rtcp.Packet {
		p := rtcp.RawPacket(b)
		return &p
	}
	ssrc := []byte{byte(video >> 24), byte(video >> 16), byte(video >> 8), byte(video)}
	return [][]rtcp.Packet{
		storm, storm, storm,
		{&rtcp.PictureLossIndication{MediaSSRC: video}, &rtcp.PictureLossIndication{MediaSSRC: video}, &rtcp.PictureLossIndication{MediaSSRC: audio}},
		{&rtcp.FullIntraRequest{MediaSSRC: video, FIR: []rtcp.FIREntry{{SSRC: video, SequenceNumber: uint8(last)}, {SSRC: audio}}}},
		{&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 1e30, SSRCs: []uint32{video, audio, 1, 2}}},
		{&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 0, SSRCs: []uint32{video}}},
		{&rtcp.ReceiverReport{Reports: []rtcp.ReceptionReport{{SSRC: video, FractionLost: 255, TotalLost: 1<<24 - 1, LastSequenceNumber: ^uint32(0), Jitter: ^uint32(0), LastSenderReport: 1, Delay: ^uint32(0)}}}},
		{&rtcp.SenderReport{SSRC: video, NTPTime: ^uint64(0), RTPTime: 1, PacketCount: ^uint32(0)}},
		{&rtcp.Goodbye{Sources: []uint32{video, audio, 0}}},
		// Congestion feedback that counts more packets than it describes, a report
		// with a length beyond the datagram, an unknown type, an empty NACK.
		{raw(append(append([]byte{0x8f, 205, 0, 5, 0, 0, 0, 1}, ssrc...), 0, 1, 0xff, 0xff, 0, 0, 0, 1, 0x20, 0xff, 0, 0)...)},
		{raw(append(append([]byte{0x8f, 205, 0, 5, 0, 0, 0, 1}, ssrc...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)...)},
		{raw(0x9f, 201, 0xff, 0xff, 0, 0, 0, 1)},
		{raw(0x80, 210, 0, 1, 1, 2, 3, 4)},
		{raw(append([]byte{0x81, 205, 0, 2, 0, 0, 0, 1}, ssrc...)...)},
	}
}

// Whatever one viewer sends, it gets at most half as many bytes again as the
// stream has, the publisher hears one request for a keyframe a second, and
// another viewer gets every packet.
func TestFloodsOfOneViewer(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	n := m.add(ledger.Limits{}, nil)
	p := n.publish("demo")
	honest := n.watch("demo")
	bad := n.watchRaw("demo")

	// What is sent to both viewers, by what one of them gets of the stream.
	share := func(frames uint64, each func()) float64 {
		out, got := n.cfg.Socket.Counters().BytesOut, honest.Stats()
		eventually(t, "frames at the honest viewer", func() bool {
			each()
			return honest.Stats().Frames >= got.Frames+frames
		})
		return float64(n.cfg.Socket.Counters().BytesOut-out) / float64(honest.Stats().Bytes-got.Bytes)
	}
	asked, began := plis(p.Stats()), time.Now()
	in := 0
	storm := share(150, func() {
		for _, packets := range bad.nuisances() {
			if err := bad.WriteRTCP(packets); err != nil {
				t.Fatal(err)
			}
			in++
		}
	})
	asked, took := plis(p.Stats())-asked, time.Since(began)
	calm := share(30, func() {})
	ratio := 2*storm/calm - 1
	t.Logf("%d datagrams of RTCP in %v: %.2f times the stream sent to who floods, %d keyframes requested", in, took.Round(time.Millisecond), ratio, asked)
	if ratio > 1.55 { // 1.5, and what may be sent again before anything is earned
		t.Errorf("%.2f times the stream is sent to a viewer that floods", ratio)
	}
	if most := uint64(took/time.Second) + 2; asked > most {
		t.Errorf("%d keyframe requests in %v, want at most %d", asked, took, most)
	}
	if lost := honest.Stats().Lost; lost != 0 {
		t.Errorf("%d packets of the other viewer are lost", lost)
	}
	if here, byPion := n.engine.Encrypted(); here != 2 || byPion != 0 {
		t.Errorf("%d connections are encrypted here, and %d by pion", here, byPion)
	}
	flows(t, honest, 10)
}

func plis(s client.Stats) (n uint64) {
	for _, t := range s.Tracks {
		n += t.PLIs
	}
	return n
}
