package sfu

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// Repair is bounded by what it repairs: whatever the far end says it lacks, a
// stream's retransmissions are at most a share of the stream.
const (
	// repairShare of the bytes sent may be sent again, as 1/repairShare: enough
	// for a fifth lost, and for a fifth of the repairs.
	repairShare = 2
	// repairBurst is the most that is saved up for a time of loss, in bytes.
	repairBurst = 256 << 10
	// repairTimes is how often one packet is sent again, and no sooner than half
	// a round trip after the last time.
	repairTimes = 8
	// repairPause bounds that half; it is the least while no round trip was
	// measured.
	repairPause    = 10 * time.Millisecond
	repairPauseTop = 200 * time.Millisecond
	// history is how many packets are kept for repair: some seconds.
	historyVideo = 1024
	historyAudio = 128
)

// repairCounters count retransmissions of all legs.
type repairCounters struct {
	sent     atomic.Int64
	withheld atomic.Int64 // asked for beyond what the bounds allow
}

// Repairs are how many packets were sent again, and how many were asked for
// beyond the bounds of repair.
func (s *SFU) Repairs() (sent, withheld int64) {
	return s.engine.repairs.sent.Load(), s.engine.repairs.withheld.Load()
}

// repairs makes a responder for each PeerConnection.
type repairs struct{ counters *repairCounters }

// NewInterceptor implements interceptor.Factory.
func (r repairs) NewInterceptor(string) (interceptor.Interceptor, error) {
	return &responder{counters: r.counters, streams: map[uint32]*history{}}, nil
}

// A responder answers the negative acknowledgements (RFC 4585, section 6.2.1)
// of one PeerConnection, on the goroutine that reads them: by retransmission
// packets (RFC 4588) where those were negotiated, else by the packet itself.
type responder struct {
	interceptor.NoOp
	counters *repairCounters

	mu      sync.Mutex
	streams map[uint32]*history
}

// A history is the last packets of one stream.
type history struct {
	ssrc, rtxSSRC uint32
	rtxType       uint8
	writer        interceptor.RTPWriter
	rtt           roundTrip

	mu     sync.Mutex
	slots  []kept // by sequence number, modulo their number
	newest uint16
	began  bool
	budget int // bytes
	rtxSeq uint16
}

// kept is a packet as it was sent.
type kept struct {
	packet []byte // empty: none
	seq    uint16
	times  uint8 // that it was sent again
	last   time.Time
}

// BindLocalStream keeps what is sent.
func (r *responder) BindLocalStream(info *interceptor.StreamInfo, writer interceptor.RTPWriter) interceptor.RTPWriter {
	if !slices.ContainsFunc(info.RTCPFeedback, func(f interceptor.RTCPFeedback) bool { return f.Type == "nack" && f.Parameter == "" }) {
		return writer
	}
	size := historyVideo
	if kindOf(info.MimeType) == webrtc.RTPCodecTypeAudio {
		size = historyAudio
	}
	h := &history{
		ssrc: info.SSRC, rtxSSRC: info.SSRCRetransmission, rtxType: info.PayloadTypeRetransmission, writer: writer,
		slots: make([]kept, size), budget: repairBurst, rtxSeq: uint16(rand.Uint32()),
	}
	r.mu.Lock()
	r.streams[info.SSRC] = h
	r.mu.Unlock()
	return interceptor.RTPWriterFunc(func(header *rtp.Header, payload []byte, a interceptor.Attributes) (int, error) {
		if header.SSRC == h.ssrc {
			h.keep(header, payload)
		}
		return writer.Write(header, payload, a)
	})
}

// UnbindLocalStream forgets the stream.
func (r *responder) UnbindLocalStream(info *interceptor.StreamInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, info.SSRC)
}

func (r *responder) stream(ssrc uint32) *history {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.streams[ssrc]
}

// BindRTCPReader answers what comes.
func (r *responder) BindRTCPReader(reader interceptor.RTCPReader) interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := reader.Read(b, a)
		if err != nil {
			return n, a, err
		}
		if a == nil {
			a = interceptor.Attributes{}
		}
		packets, err := a.GetRTCPPackets(b[:n])
		if err != nil {
			return n, a, nil // not RTCP: its other readers say so
		}
		now := time.Now()
		for _, p := range packets {
			switch p := p.(type) {
			case *rtcp.TransportLayerNack:
				if h := r.stream(p.MediaSSRC); h != nil {
					h.answer(p.Nacks, now, r.counters)
				}
			case *rtcp.ReceiverReport:
				for _, report := range p.Reports {
					if h := r.stream(report.SSRC); h != nil {
						h.rtt.reported(report.LastSenderReport, report.Delay, now)
					}
				}
			}
		}
		return n, a, nil
	})
}

// BindRTCPWriter notes when sender reports leave.
func (r *responder) BindRTCPWriter(writer interceptor.RTCPWriter) interceptor.RTCPWriter {
	return interceptor.RTCPWriterFunc(func(packets []rtcp.Packet, a interceptor.Attributes) (int, error) {
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok {
				if h := r.stream(sr.SSRC); h != nil {
					h.rtt.sent(sr.NTPTime, time.Now())
				}
			}
		}
		return writer.Write(packets, a)
	})
}

// keep remembers one packet, and has it earn its share of repair.
func (h *history) keep(header *rtp.Header, payload []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ahead := int16(header.SequenceNumber - h.newest); !h.began || ahead > 0 {
		h.newest, h.began = header.SequenceNumber, true
	} else if int(-ahead) >= len(h.slots) {
		return
	}
	k := &h.slots[int(header.SequenceNumber)%len(h.slots)]
	size := header.MarshalSize()
	k.packet = slices.Grow(k.packet[:0], size+len(payload))[:size]
	if _, err := header.MarshalTo(k.packet); err != nil {
		k.packet = k.packet[:0]
		return
	}
	k.packet = append(k.packet, payload...)
	k.seq, k.times, k.last = header.SequenceNumber, 0, time.Time{}
	h.budget = min(repairBurst, h.budget+len(k.packet)/repairShare)
}

// answer sends again what nacks ask for, as far as the bounds allow.
func (h *history) answer(nacks []rtcp.NackPair, now time.Time, counters *repairCounters) {
	for _, pair := range nacks {
		pair.Range(func(seq uint16) bool {
			switch h.repeat(seq, now) {
			case repairSent:
				counters.sent.Add(1)
			case repairWithheld:
				counters.withheld.Add(1)
			case repairUnknown:
			}
			return true
		})
	}
}

// What came of one packet that was asked for.
type repair int

const (
	repairUnknown  repair = iota // not kept: too old, or never sent
	repairSent                   //
	repairWithheld               // by a bound
)

// repeat sends one packet again. Its write ends in a socket that does not
// block, so mu may be held.
func (h *history) repeat(seq uint16, now time.Time) repair {
	h.mu.Lock()
	defer h.mu.Unlock()
	k := &h.slots[int(seq)%len(h.slots)]
	if len(k.packet) == 0 || k.seq != seq {
		return repairUnknown
	}
	if h.budget < len(k.packet) || k.times >= repairTimes || k.times > 0 && now.Sub(k.last) < h.pause() {
		return repairWithheld
	}
	var p rtp.Packet
	if p.Unmarshal(k.packet) != nil {
		return repairUnknown
	}
	h.budget -= len(k.packet)
	k.times++
	k.last = now
	if h.rtxSSRC != 0 && h.rtxType != 0 {
		// RFC 4588, section 4: the payload begins with the original's number.
		p.Payload = append(binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(p.Payload)), seq), p.Payload...)
		p.SSRC, p.PayloadType, p.SequenceNumber = h.rtxSSRC, h.rtxType, h.rtxSeq
		p.Padding, p.PaddingSize = false, 0
		h.rtxSeq++
	}
	_, _ = h.writer.Write(&p.Header, p.Payload, interceptor.Attributes{}) // it fails when the leg closes
	return repairSent
}

// pause is the least time between two repeats of one packet.
func (h *history) pause() time.Duration {
	return min(max(h.rtt.last()/2, repairPause), repairPauseTop)
}
