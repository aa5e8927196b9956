package rtc

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/srtp"
	"weir/sfu/udp"
)

// An outbound sends the RTP of one transport around pion's interceptors, SRTP
// and ICE, as soon as it has the keys. RTCP, and everything where the keys are
// not learned, takes pion's way: see [srtp.KeyWatch].
//
// Each SSRC is encrypted here alone or by pion alone, since both count its
// roll-overs: nothing is sent before the handshake is over, and what it has
// yielded then holds for good.
type outbound struct {
	engine  *Engine
	media   bool // RTP is sent: to a viewer or over a link
	control controller
	sealer  atomic.Pointer[srtp.Sealer] // nil: by pion
	route   atomic.Pointer[route]

	mu      sync.Mutex
	indices map[uint32]*srtp.Index // by SSRC
	ufrag   string                 // of this end
	tcp     net.PacketConn         // the connections of ufrag; nil: not needed yet
}

// A route is the selected candidate pair, as far as media needs it.
type route struct {
	udp netip.AddrPort
	far net.Addr       // over TCP; nil: over UDP
	tcp net.PacketConn // of far
}

// secured takes over the RTP if keys, what the handshake has yielded, allow it.
func (o *outbound) secured(keys *srtp.Keys) {
	switch s := keys.Sealer(); {
	case !o.media:
	case s == nil:
		o.engine.byPion.Add(1)
	default:
		o.sealer.Store(s)
		o.engine.sealed.Add(1)
	}
}

// expect records the ICE username fragment of this end.
func (o *outbound) expect(ufrag string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if ufrag != o.ufrag {
		o.ufrag = ufrag
		o.release()
	}
}

// begin makes packets go to the far end of the pair that is selected now, if
// follow has not been told of one yet.
func (o *outbound) begin(transport *webrtc.ICETransport) {
	pair, err := transport.GetSelectedCandidatePair() // waits for a close, so without mu
	if err != nil || pair == nil {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.route.Load() == nil {
		o.take(pair)
	}
}

// follow makes packets go to the far end of a newly selected pair. It asks pion
// for nothing: a graceful close holds the lock of pion's gatherer while it waits
// for whoever is told of a pair.
func (o *outbound) follow(pair *webrtc.ICECandidatePair) {
	if pair == nil {
		return // during an ICE restart packets go where they went before
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.take(pair)
}

// take makes the route of pair. Called with mu held.
func (o *outbound) take(pair *webrtc.ICECandidatePair) {
	addr, err := netip.ParseAddr(pair.Remote.Address)
	if err != nil {
		return // not an address that pion could send to
	}
	far := netip.AddrPortFrom(addr, pair.Remote.Port)
	if pair.Remote.Protocol != webrtc.ICEProtocolTCP {
		o.route.Store(&route{udp: far})
		return
	}
	if o.tcp == nil && o.engine.tcp != nil {
		if o.tcp, err = o.engine.tcp.GetConnByUfrag(o.ufrag, addr.Is6(), nil); err != nil {
			return // the engine closes
		}
	}
	o.route.Store(&route{far: net.TCPAddrFromAddrPort(far), tcp: o.tcp})
}

// release gives the connections back. Called with mu held.
func (o *outbound) release() {
	if o.tcp != nil {
		_ = o.tcp.Close() // it always returns nil
		o.tcp = nil
	}
}

func (o *outbound) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.release()
}

// index returns the index of ssrc, which goes on whatever is sent under it.
func (o *outbound) index(ssrc uint32) *srtp.Index {
	o.mu.Lock()
	defer o.mu.Unlock()
	i := o.indices[ssrc]
	if i == nil {
		i = &srtp.Index{}
		if o.indices == nil {
			o.indices = map[uint32]*srtp.Index{}
		}
		o.indices[ssrc] = i
	}
	return i
}

// errNoRoute is returned for packets before a candidate pair is selected.
var errNoRoute = errors.New("no candidate pair is selected")

// A trackSender sends the packets of one [LocalTrack]. It implements
// [forward.BatchSender].
type trackSender struct {
	out       *outbound
	pion      webrtc.TrackLocalWriter
	writeRTCP func([]rtcp.Packet) error
	ssrc      uint32
	index     *srtp.Index // of ssrc
	rtx       *srtp.Index // of the SSRC of retransmissions
	buffer    []byte      // a packet that leaves alone
	stamp     stamp       // of congestion control
	blocks    *blocks     // nil: not redundant audio
}

// WriteRTCP implements forward.Sender.
func (s *trackSender) WriteRTCP(packets []rtcp.Packet) error { return s.writeRTCP(packets) }

// WriteRTP implements forward.Sender.
func (s *trackSender) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	sealer, to := s.out.sealer.Load(), s.out.route.Load()
	if sealer != nil && to == nil {
		return 0, errNoRoute
	}
	payload = s.blocks.of(payload)
	s.stamp.mark(h, payload)
	if sealer == nil {
		return s.pion.WriteRTP(h, payload)
	}
	size := srtp.SealedSize(h, payload)
	s.buffer = slices.Grow(s.buffer[:0], size)[:size]
	n, err := sealer.Seal(s.buffer, s.indexOf(h.SSRC), h, payload)
	switch {
	case err != nil:
	case to.far != nil:
		_, err = to.tcp.WriteTo(s.buffer[:n], to.far)
	default:
		_, err = s.out.engine.socket.WriteToAddrPort(s.buffer[:n], to.udp)
	}
	if err != nil {
		return 0, err
	}
	return n - srtp.TagSize, nil
}

// BatchRTP implements forward.BatchSender.
func (s *trackSender) BatchRTP(b forward.Batch, h *rtp.Header, payload []byte) (int, error) {
	sealer, to := s.out.sealer.Load(), s.out.route.Load()
	if sealer == nil || to == nil || to.far != nil {
		return s.WriteRTP(h, payload)
	}
	payload = s.blocks.of(payload)
	s.stamp.mark(h, payload)
	n, err := sealer.Seal(b.Next(to.udp, srtp.SealedSize(h, payload)), s.indexOf(h.SSRC), h, payload)
	if err != nil {
		return 0, err
	}
	b.Commit(n)
	return n - srtp.TagSize, nil
}

// NewBatch implements forward.BatchSender.
func (s *trackSender) NewBatch() forward.Batch { return s.out.engine.batches.Get().(*batch) }

func (s *trackSender) indexOf(ssrc uint32) *srtp.Index {
	if ssrc == s.ssrc {
		return s.index
	}
	return s.rtx
}

// A batch is used for one pass of one track, then by another track.
type batch struct {
	*udp.Batch
	pool *sync.Pool
}

// Flush implements forward.Batch.
func (b *batch) Flush() (int, error) {
	defer b.pool.Put(b)
	return b.Batch.Flush()
}
