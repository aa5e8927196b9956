package srtp

import (
	"errors"
	"sync"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"weir/sfu/forward"
)

const (
	// ReplayWindow is how many packets late a packet of an SSRC may be (RFC 3711,
	// section 3.3.2). One that is sent again without RTX is the same to SRTP as
	// the first time, and comes a round trip late.
	ReplayWindow = 1024
	// EarlyPackets bounds the packets that are kept until the handshake is over
	// on this end too: the far end may send as soon as it is on its own.
	EarlyPackets = 64
)

// An Opener decrypts the RTP of one transport where it arrives, around pion's
// mux, SRTP and buffers, if this end learns the keys; see [KeyWatch]. RTCP stays
// pion's. Any goroutine may use it.
type Opener struct {
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

// NewOpener makes an Opener that keeps packets until Secured. It calls accept with
// each decrypted packet and the time at which it was read, and refuse for each
// that is not accepted. The packet is valid until accept returns. Calls do not
// overlap. Neither may block.
func NewOpener(accept func(packet []byte, at time.Time), refuse func(why forward.Reason)) *Opener {
	return &Opener{accept: accept, refuse: refuse}
}

// isRTCP tells RTCP from RTP (RFC 5761, section 4).
func isRTCP(b []byte) bool { return len(b) > 1 && b[1] >= 192 && b[1] <= 223 }

// Take takes a datagram of RTP that was read at at, which it may change, and
// reports false for RTCP.
func (o *Opener) Take(datagram []byte, at time.Time) bool {
	if isRTCP(datagram) {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.over:
	case o.open != nil:
		o.decrypt(datagram, at)
	case len(o.early) == EarlyPackets:
		o.refuse(forward.Early)
	default:
		o.early = append(o.early, earlyPacket{append([]byte(nil), datagram...), at})
	}
	return true
}

// Secured begins to decrypt with keys, those of the far end being the client's.
func (o *Opener) Secured(keys *Keys) {
	o.mu.Lock()
	defer o.mu.Unlock()
	open, err := srtp.CreateContext(keys.client.key, keys.client.salt, srtp.ProtectionProfile(keys.profile), srtp.SRTPReplayProtection(ReplayWindow))
	if err != nil {
		return // never: the profile is one of ours, and its keys have its sizes
	}
	o.open = open
	for _, p := range o.early {
		o.decrypt(p.data, p.at)
	}
	o.early = nil
}

// Close drops all that is taken from now on.
func (o *Opener) Close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.over, o.early = true, nil
}

// decrypt decrypts a packet in place and passes it on. Called with mu held.
func (o *Opener) decrypt(datagram []byte, at time.Time) {
	packet, err := o.open.DecryptRTP(datagram, datagram, &o.header)
	switch {
	case err == nil:
		o.accept(packet, at)
	case errors.Is(err, srtp.ErrFailedToVerifyAuthTag):
		o.refuse(forward.Forged)
	case !whole(datagram):
		o.refuse(forward.Malformed)
	default:
		o.refuse(forward.Replayed)
	}
}

// whole reports whether datagram has an RTP header and an authentication tag,
// which is of 10 bytes at least.
func whole(datagram []byte) bool {
	var h rtp.Header
	n, err := h.Unmarshal(datagram)
	return err == nil && len(datagram) >= n+10
}
