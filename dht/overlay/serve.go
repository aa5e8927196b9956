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
	// ServeTimeout bounds the time to read a request, and to send an answer.
	ServeTimeout = 5 * time.Second

	// Requests being served, in all and per peer; the resource manager bounds
	// by StreamsPerPeer how many more of a peer may be on their way.
	maxServed     = 1_024
	MaxServedPeer = 32
	// MaxWatchesPeer is how many watches of one peer are served.
	MaxWatchesPeer = 64
)

// A Server reads requests from streams and sends answers, with a bound on how
// many are served at once.
type Server struct {
	Inbound InboundLimit

	ctx    context.Context // of spans; ends with the overlay
	heard  func(peer.ID)   // called with every peer that has sent a request
	log    *slog.Logger
	tracer trace.Tracer
}

// Receive reads one request of at most limit bytes from s into req, or resets s
// and reports false. It takes no place, so a silent peer keeps no other out.
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

// Reply sends the result of answer, or busy if there is no place. The peer's ID
// is the one proved in the connection's handshake.
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

// Handler returns a handler of streams that carry one request each, of at most
// limit bytes. Busy is the answer if there is no place. The context that answer
// gets has the request's trace, if it has one.
func Handler[T any, Req interface {
	*T
	proto.Message
}, Resp proto.Message](s *Server, limit int, busy Resp, answer func(ctx context.Context, from peer.ID, req Req) Resp) func(network.Stream) {
	return func(stream network.Stream) {
		req := Req(new(T))
		if s.Receive(stream, limit, req) {
			s.Reply(stream, busy, func(from peer.ID) proto.Message { return Answer(s, from, req, answer) })
		}
	}
}

// An InboundLimit bounds how many requests are served at once, in all and per
// peer, and how many watches per peer; the watched table bounds the watches in
// all. The zero value is ready for use.
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

// Leave gives back the place taken by Enter.
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

// Served is how many requests are being served, and how many peers have
// requests or watches.
func (l *InboundLimit) Served() (requests, peers int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total, len(l.peers)
}
