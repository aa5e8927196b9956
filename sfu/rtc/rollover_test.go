package rtc

import (
	"bytes"
	"testing"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// Over many roll-overs of sequence numbers, and one of timestamps, a viewer
// decrypts all that is sealed here, and what is sent again after each.
func TestRollOvers(t *testing.T) {
	v := newTestEngine(t, "127.0.0.1:0").view(t, func(s *webrtc.SettingEngine) {
		s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM)
	}, func(s string) string { return s })
	last := v.pass()
	for ; !bytes.Equal(last.Payload, v.payload); last = <-v.received { // it may begin with some from before
	}
	if v.server.out.sealer.Load() == nil {
		t.Fatal("not sealed here")
	}
	const step = 9000 // of both numbers, so that 200 packets are enough
	rolled, wrapped := 0, 0
	for range 200 {
		v.next += step - 1
		p := v.pass()
		if p.SequenceNumber != last.SequenceNumber+step || p.Timestamp != last.Timestamp+3000*step {
			t.Fatalf("packet %d at %d after %d at %d", p.SequenceNumber, p.Timestamp, last.SequenceNumber, last.Timestamp)
		}
		if p.Timestamp < last.Timestamp {
			wrapped++
		}
		if p.SequenceNumber < last.SequenceNumber {
			rolled++
			if err := v.WriteRTCP([]rtcp.Packet{&rtcp.TransportLayerNack{
				MediaSSRC: p.SSRC, Nacks: rtcp.NackPairsFromSequenceNumbers([]uint16{p.SequenceNumber}),
			}}); err != nil {
				t.Fatal(err)
			}
			// pion returns what was repaired with what comes next.
			for next := v.pass(); next.SequenceNumber != p.SequenceNumber || next.Timestamp != p.Timestamp; next = v.pass() {
			}
			for p = v.pass(); !bytes.Equal(p.Payload, v.payload); p = <-v.received { // all that is under way
			}
		}
		last = p
	}
	if rolled < 20 || wrapped == 0 {
		t.Errorf("%d roll-overs of sequence numbers, %d of timestamps", rolled, wrapped)
	}
}
