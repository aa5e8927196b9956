package rtc

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"weir/sfu/forward"
)

const (
	// replayWindow is how many packets late a packet of an SSRC may be (RFC 3711,
	// section 3.3.2). One that is sent again without RTX is the same to SRTP as
	// the first time, and comes a round trip late.
	replayWindow = 1024
	// earlyPackets bounds the packets that are kept until the handshake is over
	// on this end too: the far end may send as soon as it is on its own.
	earlyPackets = 64
)

// An inbound decrypts the RTP of one transport where it arrives, around pion's
// mux, SRTP and buffers, if this end learns the keys; see [keyWatch]. RTCP stays
// pion's.
type inbound struct {
	// accept is called with each decrypted packet and the time at which it was
	// read, and refuse for each that is not accepted. The packet is valid until
	// accept returns. Calls do not overlap. Neither may block.
	accept func(packet []byte, at time.Time)
	refuse func(why forward.Reason)

	mu     sync.Mutex
	open   *srtp.Context // nil before the handshake is over
	header rtp.Header    // of the last packet
	early  []earlyPacket
	over   bool // the transport is closed
}

type earlyPacket struct {
	data []byte
	at   time.Time
}

// isRTCP tells RTCP from RTP (RFC 5761, section 4).
func isRTCP(b []byte) bool { return len(b) > 1 && b[1] >= 192 && b[1] <= 223 }

// take takes a datagram of RTP: see [udp.Peer.Take].
func (in *inbound) take(datagram []byte, at time.Time) bool {
	if isRTCP(datagram) {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.over:
	case in.open != nil:
		in.decrypt(datagram, at)
	case len(in.early) == earlyPackets:
		in.refuse(forward.Early)
	default:
		in.early = append(in.early, earlyPacket{append([]byte(nil), datagram...), at})
	}
	return true
}

// secured begins to decrypt with keys, those of the far end being the client's.
func (in *inbound) secured(keys *srtpKeys) {
	in.mu.Lock()
	defer in.mu.Unlock()
	open, err := srtp.CreateContext(keys.client.key, keys.client.salt, srtp.ProtectionProfile(keys.profile), srtp.SRTPReplayProtection(replayWindow))
	if err != nil {
		return // never: the profile is one of ours, and its keys have its sizes
	}
	in.open = open
	for _, p := range in.early {
		in.decrypt(p.data, p.at)
	}
	in.early = nil
}

// close drops all that is taken from now on.
func (in *inbound) close() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.over, in.early = true, nil
}

// decrypt decrypts a packet in place and passes it on. Called with mu held.
func (in *inbound) decrypt(datagram []byte, at time.Time) {
	packet, err := in.open.DecryptRTP(datagram, datagram, &in.header)
	switch {
	case err == nil:
		in.accept(packet, at)
	case errors.Is(err, srtp.ErrFailedToVerifyAuthTag):
		in.refuse(forward.Forged)
	case !whole(datagram):
		in.refuse(forward.Malformed)
	default:
		in.refuse(forward.Replayed)
	}
}

// whole reports whether datagram has an RTP header and an authentication tag,
// which is of 10 bytes at least.
func whole(datagram []byte) bool {
	var h rtp.Header
	n, err := h.Unmarshal(datagram)
	return err == nil && len(datagram) >= n+10
}

// ssrcOf returns the SSRC of a packet of RTP that was parsed before.
func ssrcOf(packet []byte) uint32 { return binary.BigEndian.Uint32(packet[8:]) }
