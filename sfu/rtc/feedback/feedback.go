// Package feedback counts the RTCP requests of PeerConnections, as an interceptor
// of pion.
package feedback

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
)

// Counts are the RTCP requests received from and sent to publishers,
// viewers and links, since the start of the node.
type Counts struct {
	KeyframesIn, KeyframesOut int64 // keyframe requests, PLI or FIR: received and sent
	RepairsIn, RepairsOut     int64 // packets requested by NACK: from this node and by it
}

// Counters counts RTCP requests on all PeerConnections whose registry it was added
// to. The zero value is ready.
type Counters struct {
	keyframesIn, keyframesOut, repairsIn, repairsOut atomic.Int64
}

// Read returns the totals.
func (c *Counters) Read() Counts {
	return Counts{c.keyframesIn.Load(), c.keyframesOut.Load(), c.repairsIn.Load(), c.repairsOut.Load()}
}

// NewInterceptor implements [interceptor.Factory].
func (c *Counters) NewInterceptor(string) (interceptor.Interceptor, error) {
	return &counter{totals: c}, nil
}

// A counter counts for one PeerConnection.
type counter struct {
	interceptor.NoOp
	totals *Counters

	mu   sync.Mutex
	last []byte // the datagram counted last
	at   time.Time
}

// duplicateWithin is how soon after a datagram its copies come: pion passes a
// copy to the reader of each stream that it names.
const duplicateWithin = 20 * time.Millisecond

// fresh reports whether b is not a copy of the datagram counted last.
func (f *counter) fresh(b []byte, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.at) < duplicateWithin && bytes.Equal(b, f.last) {
		return false
	}
	f.last, f.at = append(f.last[:0], b...), now
	return true
}

func count(packets []rtcp.Packet, keyframes, repairs *atomic.Int64) {
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
			keyframes.Add(1)
		case *rtcp.TransportLayerNack:
			for _, pair := range p.Nacks {
				repairs.Add(int64(len(pair.PacketList())))
			}
		}
	}
}

// BindRTCPReader implements interceptor.Interceptor: it counts received RTCP.
func (f *counter) BindRTCPReader(reader interceptor.RTCPReader) interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := reader.Read(b, a)
		if err != nil {
			return n, a, err
		}
		if a == nil {
			a = interceptor.Attributes{}
		}
		if packets, bad := a.GetRTCPPackets(b[:n]); bad == nil && f.fresh(b[:n], time.Now()) {
			count(packets, &f.totals.keyframesIn, &f.totals.repairsIn)
		}
		return n, a, nil
	})
}

// BindRTCPWriter implements interceptor.Interceptor: it counts sent RTCP.
func (f *counter) BindRTCPWriter(writer interceptor.RTCPWriter) interceptor.RTCPWriter {
	return interceptor.RTCPWriterFunc(func(packets []rtcp.Packet, a interceptor.Attributes) (int, error) {
		n, err := writer.Write(packets, a)
		if err == nil {
			count(packets, &f.totals.keyframesOut, &f.totals.repairsOut)
		}
		return n, err
	})
}
