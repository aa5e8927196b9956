package overlay

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Usage is one protocol's traffic of this node since it started.
//
// Bytes are counted on the protocol's streams, including the negotiation of the
// protocol but not the headers of multiplexer, encryption and IP. Messages are
// writes to and reads from streams: every protocol here writes one message at a
// time, while a read may find a message in two pieces. Bytes of a stream before
// its protocol is known are listed with an empty Protocol.
type Usage struct {
	Protocol    string `json:"protocol"`
	MessagesIn  int64  `json:"messages_in"`
	MessagesOut int64  `json:"messages_out"`
	BytesIn     int64  `json:"bytes_in"`
	BytesOut    int64  `json:"bytes_out"`
}

// Traffic counts libp2p's traffic per protocol. It implements metrics.Reporter.
type Traffic struct {
	mu       sync.RWMutex
	counters map[protocol.ID]*counters
}

type counters struct{ messagesIn, messagesOut, bytesIn, bytesOut atomic.Int64 }

// maxProtocols bounds the protocols counted separately; the rest count under
// "".
const maxProtocols = 256

func newTraffic() *Traffic { return &Traffic{counters: make(map[protocol.ID]*counters)} }

func (t *Traffic) of(p protocol.ID) *counters {
	t.mu.RLock()
	c := t.counters[p]
	t.mu.RUnlock()
	if c != nil {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.counters) >= maxProtocols {
		p = ""
	}
	if t.counters[p] == nil {
		t.counters[p] = &counters{}
	}
	return t.counters[p]
}

// List is each protocol's traffic since the node started.
func (t *Traffic) List() []Usage {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := make([]Usage, 0, len(t.counters))
	for p, c := range t.counters {
		list = append(list, Usage{
			Protocol:    string(p),
			MessagesIn:  c.messagesIn.Load(),
			MessagesOut: c.messagesOut.Load(),
			BytesIn:     c.bytesIn.Load(),
			BytesOut:    c.bytesOut.Load(),
		})
	}
	slices.SortFunc(list, func(a, b Usage) int { return cmp.Compare(a.Protocol, b.Protocol) })
	return list
}

// LogSentMessageStream counts one write to a stream.
func (t *Traffic) LogSentMessageStream(n int64, p protocol.ID, _ peer.ID) {
	if n > 0 {
		c := t.of(p)
		c.messagesOut.Add(1)
		c.bytesOut.Add(n)
	}
}

// LogRecvMessageStream counts one read from a stream.
func (t *Traffic) LogRecvMessageStream(n int64, p protocol.ID, _ peer.ID) {
	if n > 0 {
		c := t.of(p)
		c.messagesIn.Add(1)
		c.bytesIn.Add(n)
	}
}

// The rest of metrics.Reporter is not used here.

func (t *Traffic) LogSentMessage(int64) {}
func (t *Traffic) LogRecvMessage(int64) {}
func (t *Traffic) GetBandwidthForPeer(peer.ID) metrics.Stats {
	return metrics.Stats{}
}
func (t *Traffic) GetBandwidthForProtocol(p protocol.ID) metrics.Stats {
	c := t.of(p)
	return metrics.Stats{TotalIn: c.bytesIn.Load(), TotalOut: c.bytesOut.Load()}
}
func (t *Traffic) GetBandwidthTotals() (s metrics.Stats) {
	for _, l := range t.List() {
		s.TotalIn += l.BytesIn
		s.TotalOut += l.BytesOut
	}
	return s
}
func (t *Traffic) GetBandwidthByPeer() map[peer.ID]metrics.Stats { return nil }
func (t *Traffic) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats {
	m := make(map[protocol.ID]metrics.Stats)
	for _, l := range t.List() {
		m[protocol.ID(l.Protocol)] = metrics.Stats{TotalIn: l.BytesIn, TotalOut: l.BytesOut}
	}
	return m
}
func (t *Traffic) Reset()             {}
func (t *Traffic) TrimIdle(time.Time) {}
