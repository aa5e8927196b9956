package overlay

import (
	"bufio"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"weir/capacity/frame"
)

const (
	// ServeTimeout bounds the time for a request to come, and for an answer to
	// go.
	ServeTimeout = 5 * time.Second

	// Requests that have come and are being served; how many more of one peer may
	// be on their way is the resource manager's, StreamsPerPeer.
	maxServed     = 1_024
	MaxServedPeer = 32
	// MaxWatchesPeer is how many watches of one peer are served.
	MaxWatchesPeer = 64
)

// A Server reads requests from streams and sends answers, so many at once.
type Server struct {
	Inbound InboundLimit

	ctx    context.Context // of spans; ends with the overlay
	heard  func(peer.ID)   // told of every peer that has asked something
	log    *slog.Logger
	tracer trace.Tracer
}

// Receive reads one request of at most limit bytes from s into req, or resets s
// and reports false. It takes no place: a peer that says nothing keeps nobody
// out.
func (s *Server) Receive(stream network.Stream, limit int, req proto.Message) bool {
	from := stream.Conn().RemotePeer()
	_ = stream.SetReadDeadline(time.Now().Add(ServeTimeout))
	if _, err := frame.ReadPrintable(bufio.NewReader(stream), limit, req); err != nil {
		s.log.Debug("request not understood", "peer", from, "protocol", stream.Protocol(), "err", err)
		_ = stream.Reset()
		return false
	}
	s.heard(from)
	return true
}

// Reply sends what answer returns, or busy if there is no place. The asker is
// who the connection's handshake says it is.
func (s *Server) Reply(stream network.Stream, busy proto.Message, answer func(from peer.ID) proto.Message) {
	from, resp := stream.Conn().RemotePeer(), busy
	if s.Inbound.Enter(from, false) {
		defer s.Inbound.Leave(from, false)
		resp = answer(from)
	}
	_ = stream.SetWriteDeadline(time.Now().Add(ServeTimeout))
	if _, err := frame.Write(stream, resp); err != nil {
		s.log.Debug("answer not sent", "peer", from, "protocol", stream.Protocol(), "err", err)
		_ = stream.Reset()
		return
	}
	_ = stream.Close()
}

// ServeOne is Receive and Reply.
func (s *Server) ServeOne(stream network.Stream, limit int, req, busy proto.Message, answer func(from peer.ID) proto.Message) {
	if s.Receive(stream, limit, req) {
		s.Reply(stream, busy, answer)
	}
}

// An InboundLimit bounds how many requests are served at once, in all and per
// peer, and how many watches per peer; how many watches in all is the bound of
// what is watched. The zero value is ready for use.
type InboundLimit struct {
	mu    sync.Mutex
	total int
	peers map[inboundKey]int
}

type inboundKey struct {
	peer  peer.ID
	watch bool
}

// Enter takes a place for p, or reports that there is none.
func (l *InboundLimit) Enter(p peer.ID, watch bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	key, most := inboundKey{p, watch}, MaxServedPeer
	if watch {
		most = MaxWatchesPeer
	}
	if !watch && l.total >= maxServed || l.peers[key] >= most {
		return false
	}
	if l.peers == nil {
		l.peers = make(map[inboundKey]int)
	}
	if !watch {
		l.total++
	}
	l.peers[key]++
	return true
}

// Leave gives back what Enter took.
func (l *InboundLimit) Leave(p peer.ID, watch bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := inboundKey{p, watch}
	if !watch {
		l.total--
	}
	if l.peers[key]--; l.peers[key] == 0 {
		delete(l.peers, key)
	}
}

// Served is how many requests are being served, and of how many peers there are
// requests or watches.
func (l *InboundLimit) Served() (requests, peers int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total, len(l.peers)
}
