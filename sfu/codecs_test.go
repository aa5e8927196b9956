package sfu

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
)

// incoming makes pc receive one track, and returns its first packets.
func incoming(t *testing.T, pc *webrtc.PeerConnection, kind webrtc.RTPCodecType) <-chan *rtp.Packet {
	t.Helper()
	if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	packets := make(chan *rtp.Packet, 64)
	pc.OnTrack(func(r *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		for {
			p, _, err := r.ReadRTP()
			if err != nil {
				return
			}
			select {
			case packets <- p:
			default:
			}
		}
	})
	return packets
}

// next returns the next of packets.
func next(t *testing.T, packets <-chan *rtp.Packet) *rtp.Packet {
	t.Helper()
	select {
	case p := <-packets:
		return p
	case <-time.After(patience):
		t.Fatal("no packet")
		return nil
	}
}

// with is a codec of a table, as publisher and viewers name it.
func with(mime string, channels uint16, pt webrtc.PayloadType, fmtp string) webrtc.RTPCodecParameters {
	p := param(mime, pt, fmtp)
	if channels != 0 {
		p.Channels = channels
	}
	return p
}

// Every codec that publisher and viewer both name goes through unchanged, to
// viewers of the publisher's node and of another one; who cannot decode it is
// told what the stream has, at both.
func TestCodecs(t *testing.T) {
	t.Parallel()
	const multiopus = "audio/multiopus"
	surround := "channel_mapping=0,4,1,2,3,5;coupled_streams=2;minptime=10;num_streams=4;useinbandfec=1"
	h264Of := func(profile, mode string) string {
		return "level-asymmetry-allowed=1;packetization-mode=" + mode + ";profile-level-id=" + profile
	}
	idr, hevc := []byte{0x65, 0x88, 0x84}, []byte{0x26, 0x01, 0xaf, 0x01}
	vp9 := []byte{0x88, 0x01, 0x82, 0x49}
	for _, c := range []struct {
		mime      string
		channels  uint16
		fmtp      string
		payload   []byte
		views     []string // format parameters of viewers that get it
		refused   []string // of viewers that do not
		described string   // to these
	}{
		{mime: webrtc.MimeTypeVP8, payload: []byte{0x10, 0x00, 0x9d, 0x01, 0x2a}, views: []string{""}},
		{mime: webrtc.MimeTypeVP9, fmtp: "profile-id=0", payload: vp9, views: []string{"profile-id=0", ""}, refused: []string{"profile-id=2"}, described: "VP9 (profile-id=0)"},
		{mime: webrtc.MimeTypeVP9, fmtp: "profile-id=1", payload: vp9, views: []string{"profile-id=1"}, refused: []string{"profile-id=0", ""}, described: "VP9 (profile-id=1)"},
		{mime: webrtc.MimeTypeVP9, fmtp: "profile-id=2", payload: vp9, views: []string{"profile-id=2"}, refused: []string{"profile-id=0", "profile-id=3"}, described: "VP9 (profile-id=2)"},
		{mime: webrtc.MimeTypeVP9, fmtp: "profile-id=3", payload: vp9, views: []string{"profile-id=3"}, refused: []string{"profile-id=1"}, described: "VP9 (profile-id=3)"},
		{mime: webrtc.MimeTypeAV1, fmtp: "level-idx=5;profile=0;tier=0", payload: []byte{0x18, 0x08, 0x00}, views: []string{"level-idx=5;profile=0;tier=0", "profile=1", ""}},
		{mime: webrtc.MimeTypeAV1, fmtp: "profile=1", payload: []byte{0x18, 0x08, 0x00}, views: []string{"profile=1", "profile=2"}, refused: []string{"profile=0", ""}, described: "AV1 (profile=1)"},
		{mime: webrtc.MimeTypeH264, fmtp: h264Of("42e01f", "1"), payload: idr, views: []string{h264Of("42e01f", "1"), h264Of("640c1f", "1"), h264Of("4d001f", "1")}, refused: []string{h264Of("42e01f", "0")}, described: "H264 (profile-level-id=42e01f;packetization-mode=1)"},
		{mime: webrtc.MimeTypeH264, fmtp: h264Of("42e01f", "0"), payload: idr, views: []string{h264Of("42e01f", "0"), h264Of("42e01f", "1")}, refused: []string{h264Of("42e01f", "2")}, described: "packetization-mode=0"},
		{mime: webrtc.MimeTypeH264, fmtp: h264Of("640028", "2"), payload: []byte{0x79, 0, 1, 0, 3, 0x67, 0x64, 0x00}, views: []string{h264Of("640028", "2")}, refused: []string{h264Of("640028", "1")}, described: "packetization-mode=2"},
		{mime: webrtc.MimeTypeH264, fmtp: h264Of("6e001f", "1"), payload: idr, views: []string{h264Of("6e001f", "1"), h264Of("f4001f", "1")}, refused: []string{h264Of("640c1f", "1"), h264Of("42e01f", "1")}, described: "profile-level-id=6e001f"},
		{mime: webrtc.MimeTypeH265, fmtp: "level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST", payload: hevc, views: []string{"level-id=156;profile-id=1;tier-flag=0;tx-mode=SRST", "profile-id=2", ""}, refused: []string{"profile-id=3"}, described: "H265 (profile-id=1;tx-mode=SRST)"},
		{mime: webrtc.MimeTypeH265, fmtp: "profile-id=2;tier-flag=1", payload: hevc, views: []string{"profile-id=2;tier-flag=0"}, refused: []string{"profile-id=1", ""}, described: "H265 (profile-id=2)"},
		{mime: webrtc.MimeTypeOpus, fmtp: "minptime=10;stereo=1;sprop-stereo=1;usedtx=1", payload: []byte{0xf8, 0xff, 0xfe}, views: []string{"minptime=10;stereo=1;useinbandfec=1", ""}},
		{mime: webrtc.MimeTypeOpus, fmtp: "usedtx=1", payload: []byte{0x08}, views: []string{"usedtx=1"}}, // DTX: one byte, of no frame
		{mime: multiopus, channels: 6, fmtp: surround, payload: []byte{0xff, 0x03, 1, 2, 3}, views: []string{surround}, refused: []string{strings.Replace(surround, "0,4,1,2,3,5", "0,1,4,2,3,5", 1)}, described: "multiopus/48000/6 (channel_mapping=0,4,1,2,3,5)"},
		{mime: webrtc.MimeTypePCMU, payload: []byte{0xff, 0x7f}, views: []string{""}},
		{mime: webrtc.MimeTypePCMA, payload: []byte{0xd5, 0x55}, views: []string{""}},
		{mime: webrtc.MimeTypeG722, payload: []byte{0xfa, 0x13}, views: []string{""}},
	} {
		t.Run(strings.Join([]string{c.mime, c.fmtp}, " "), func(t *testing.T) {
			t.Parallel()
			m := newMesh(t)
			a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
			kind := webrtc.NewRTPCodecType(c.mime[:5])
			tracks := publishRaw(t, a, "s", nil, with(c.mime, c.channels, 100, c.fmtp))
			n := byte(0)
			every(t, func() {
				n++
				tracks[0].send(append(bytes.Clone(c.payload), n), true, 900)
			})
			for i, fmtp := range c.views {
				for _, node := range []*meshNode{a, b} {
					pt := webrtc.PayloadType(105 + i)
					pc := plainPeer(t, with(c.mime, c.channels, pt, fmtp))
					packets := incoming(t, pc, kind)
					answer := dialPeer(t, pc, node.web.URL+"/whep/s", nil)
					if fmtp != "" && !strings.Contains(answer, fmt.Sprintf("a=fmtp:%d %s\r\n", pt, fmtp)) {
						t.Errorf("a viewer that offers %s is answered\n%s", fmtp, answer)
					}
					var last *rtp.Packet
					for range 4 {
						p := next(t, packets)
						if !bytes.HasPrefix(p.Payload, c.payload) || len(p.Payload) != len(c.payload)+1 || p.PayloadType != uint8(pt) {
							t.Fatalf("got % x as payload type %d, want % x and a number as %d", p.Payload, p.PayloadType, c.payload, pt)
						}
						if last != nil && (p.SequenceNumber != last.SequenceNumber+1 || p.Payload[len(c.payload)] != last.Payload[len(c.payload)]+1) {
							t.Errorf("packet %d (% x) after %d (% x)", p.SequenceNumber, p.Payload, last.SequenceNumber, last.Payload)
						}
						last = p
					}
					_ = pc.GracefulClose()
				}
			}
			for _, fmtp := range c.refused {
				for _, node := range []*meshNode{a, b} {
					pc := plainPeer(t, with(c.mime, c.channels, 105, fmtp))
					incoming(t, pc, kind)
					offer, err := pc.CreateOffer(nil)
					if err != nil {
						t.Fatal(err)
					}
					resp, body := call(t, "POST", node.web.URL+"/whep/s", "application/sdp", offer.SDP)
					if resp.StatusCode != 406 || !strings.Contains(body, c.described) {
						t.Errorf("a viewer of %q is answered %s, want 406 and %q: %s", fmtp, resp.Status, c.described, body)
					}
				}
			}
		})
	}
}
