package dht

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

// Traffic is what one protocol has cost this node since it started.
//
// Bytes are what went over the protocol's streams, the negotiation of the
// protocol included; the multiplexer's, the encryption's and IP's headers are
// not. Messages are writes to and reads from streams: every protocol here
// writes one message at a time, while a read may find a message in two pieces.
// What a stream carries before its protocol is known is listed with an empty
// Protocol.
type Traffic struct {
	Protocol    string `json:"protocol"`
	MessagesIn  int64  `json:"messages_in"`
	MessagesOut int64  `json:"messages_out"`
	BytesIn     int64  `json:"bytes_in"`
	BytesOut    int64  `json:"bytes_out"`
}

// traffic counts for libp2p, per protocol. It implements metrics.Reporter.
type traffic struct {
	mu       sync.RWMutex
	counters map[protocol.ID]*counters
}

type counters struct{ messagesIn, messagesOut, bytesIn, bytesOut atomic.Int64 }

// maxProtocols bounds the protocols told apart; the rest count under "".
const maxProtocols = 256

func newTraffic() *traffic { return &traffic{counters: make(map[protocol.ID]*counters)} }

func (t *traffic) of(p protocol.ID) *counters {
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

func (t *traffic) list() []Traffic {
	t.mu.RLock()
	defer t.mu.RUnlock()
	list := make([]Traffic, 0, len(t.counters))
	for p, c := range t.counters {
		list = append(list, Traffic{
			Protocol:    string(p),
			MessagesIn:  c.messagesIn.Load(),
			MessagesOut: c.messagesOut.Load(),
			BytesIn:     c.bytesIn.Load(),
			BytesOut:    c.bytesOut.Load(),
		})
	}
	slices.SortFunc(list, func(a, b Traffic) int { return cmp.Compare(a.Protocol, b.Protocol) })
	return list
}

// LogSentMessageStream counts one write to a stream.
func (t *traffic) LogSentMessageStream(n int64, p protocol.ID, _ peer.ID) {
	if n > 0 {
		c := t.of(p)
		c.messagesOut.Add(1)
		c.bytesOut.Add(n)
	}
}

// LogRecvMessageStream counts one read from a stream.
func (t *traffic) LogRecvMessageStream(n int64, p protocol.ID, _ peer.ID) {
	if n > 0 {
		c := t.of(p)
		c.messagesIn.Add(1)
		c.bytesIn.Add(n)
	}
}

// The rest of metrics.Reporter is not used here.

func (t *traffic) LogSentMessage(int64) {}
func (t *traffic) LogRecvMessage(int64) {}
func (t *traffic) GetBandwidthForPeer(peer.ID) metrics.Stats {
	return metrics.Stats{}
}
func (t *traffic) GetBandwidthForProtocol(p protocol.ID) metrics.Stats {
	c := t.of(p)
	return metrics.Stats{TotalIn: c.bytesIn.Load(), TotalOut: c.bytesOut.Load()}
}
func (t *traffic) GetBandwidthTotals() (s metrics.Stats) {
	for _, l := range t.list() {
		s.TotalIn += l.BytesIn
		s.TotalOut += l.BytesOut
	}
	return s
}
func (t *traffic) GetBandwidthByPeer() map[peer.ID]metrics.Stats { return nil }
func (t *traffic) GetBandwidthByProtocol() map[protocol.ID]metrics.Stats {
	m := make(map[protocol.ID]metrics.Stats)
	for _, l := range t.list() {
		m[protocol.ID(l.Protocol)] = metrics.Stats{TotalIn: l.BytesIn, TotalOut: l.BytesOut}
	}
	return m
}
func (t *traffic) Reset()             {}
func (t *traffic) TrimIdle(time.Time) {}
