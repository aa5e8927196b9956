package rtc

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"

	"weir/sfu/sdp"
)

// A lost packet is requested under the forwarded SSRC, and no more once it has
// come as a retransmission.
func TestUndeclaredStreamIsRepaired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakePublisher(t, sdp.Section{})
		f.sections[0].codec.RTCPFeedback = []webrtc.RTCPFeedback{{Type: "nack"}}
		for _, seq := range []uint16{1, 2, 4, 5} {
			f.send(7, 96, seq, "", "")
		}
		time.Sleep(150 * time.Millisecond)
		synctest.Wait()
		asked := f.requested
		if len(asked) != 1 || asked[0].(*rtcp.TransportLayerNack).MediaSSRC != 7 || asked[0].(*rtcp.TransportLayerNack).Nacks[0].PacketID != 3 {
			t.Fatalf("asked for %v, want 3 of 7 once", asked)
		}
		p := packet(900, 6000, append([]byte{0, 3}, keyPayload...))
		p.SSRC, p.PayloadType = 8, 97
		f.write(p, "", "", "")
		time.Sleep(time.Second)
		synctest.Wait()
		if len(f.requested) != 1 || len(f.legs[0].sent) != 5 {
			t.Errorf("asked %d times, sent %d packets; want 1 and 5", len(f.requested), len(f.legs[0].sent))
		}
		if lost := f.Status(time.Now())[0].Lost; lost != 0 {
			t.Errorf("%d lost, want none", lost)
		}
	})
}

// A packet that never comes makes one keyframe request, unless a keyframe has
// come after it; audio makes none.
func TestKeyframeForAPacketGivenUp(t *testing.T) {
	for _, c := range []struct {
		name  string
		after []byte // payload of the packets after the gap
		audio bool
		want  int
	}{{"delta frames", []byte{0x10, 0x11}, false, 1}, {"a keyframe", keyPayload, false, 0}, {"audio", []byte{1}, true, 0}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakePublisher(t, sdp.Section{}, opusSection())
				pt, ssrc, section := uint8(96), uint32(7), 0
				if c.audio {
					pt, ssrc, section = 111, 9, 1
				}
				f.sections[section].codec.RTCPFeedback = []webrtc.RTCPFeedback{{Type: "nack"}}
				f.send(ssrc, pt, 1, "", "")
				time.Sleep(5 * time.Second)
				f.asked = nil
				for seq := uint16(3); seq < 8; seq++ {
					p := packet(seq, uint32(seq)*3000, c.after)
					p.SSRC, p.PayloadType = ssrc, pt
					f.write(p, "", "", "")
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if len(f.requested) == 0 || len(f.asked) != c.want {
					t.Errorf("%d NACKs, %d keyframe requests, want %d", len(f.requested), len(f.asked), c.want)
				}
			})
		})
	}
}
