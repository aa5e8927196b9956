package overlay

import (
	"bufio"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"weir/capacity/frame"
)

// A Cost is the traffic of exchanges over streams. Messages are frames, both
// ways; bytes are the frames and the negotiation of the protocol, both ways,
// without the headers of multiplexer, encryption and IP.
type Cost struct {
	Messages int
	Bytes    int64
}

// Add adds d to c.
func (c *Cost) Add(d Cost) {
	c.Messages += d.Messages
	c.Bytes += d.Bytes
}

// negotiated is the bytes for opening a stream in one direction: the lines
// "/multistream/1.0.0" and p, each with its length before and a newline after.
func negotiated(p protocol.ID) int64 {
	line := func(n int) int64 { return int64(protowire.SizeBytes(n + 1)) }
	return line(len("/multistream/1.0.0")) + line(len(p))
}

// CallsPerPeer is how many requests to one peer may be in flight. Further ones
// wait, so that the peer does not refuse them.
const CallsPerPeer = 24

// outbound bounds the concurrent requests to each peer to CallsPerPeer.
type outbound struct {
	mu    sync.Mutex
	peers map[peer.ID]*slots
}

type slots struct {
	free  chan struct{}
	users int // in flight or waiting
}

// enter waits for a place and returns the function that gives it back, or ctx's
// error.
func (l *outbound) enter(ctx context.Context, p peer.ID) (leave func(), err error) {
	l.mu.Lock()
	if l.peers == nil {
		l.peers = make(map[peer.ID]*slots)
	}
	at := l.peers[p]
	if at == nil {
		at = &slots{free: make(chan struct{}, CallsPerPeer)}
		l.peers[p] = at
	}
	at.users++
	l.mu.Unlock()
	quit := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if at.users--; at.users == 0 {
			delete(l.peers, p)
		}
	}
	select {
	case at.free <- struct{}{}:
		return func() { <-at.free; quit() }, nil
	case <-ctx.Done():
		quit()
		return nil, ctx.Err()
	}
}

// Calls is how many requests to p are in flight, or wait.
func (o *Overlay) Calls(p peer.ID) int {
	o.calls.mu.Lock()
	defer o.calls.mu.Unlock()
	if at := o.calls.peers[p]; at != nil {
		return at.users
	}
	return 0
}

// CostOf is the cost of sending req over p.
func CostOf(p protocol.ID, req proto.Message) Cost {
	return Cost{1, int64(frame.Size(req)) + negotiated(p)}
}

// Call sends req to id and reads one reply of at most max bytes into resp. It
// returns by ctx's deadline, whatever the peer does. The round trip is 0 if a
// connection had to be made first; the cost is correct also on error. If ctx
// has a trace, it is set in req.
func (o *Overlay) Call(ctx context.Context, id peer.ID, p protocol.ID, req, resp proto.Message, max int) (rtt time.Duration, spent Cost, err error) {
	ctx, span := asking(ctx, o.cfg.Tracer, id, req)
	defer func() { heardBack(span, resp, err) }()
	leave, err := o.calls.enter(ctx, id)
	if err != nil {
		// This node was too busy; the peer is not to blame.
		return 0, spent, fmt.Errorf("%w: %d requests under way: %w", network.ErrResourceLimitExceeded, CallsPerPeer, err)
	}
	defer leave()
	connected := o.Peers.Connected(id)
	s, err := o.Host.NewStream(ctx, id, p)
	if err != nil {
		err = CallError(ctx, err)
		if !o.Peers.Connected(id) && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
		return 0, spent, err
	}
	// Reset, unlike Close, never waits for the peer; once the reply has been
	// read, Close does not wait either.
	defer func() {
		if err != nil {
			_ = s.Reset()
		} else {
			_ = s.Close()
		}
	}()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(deadline)
	}
	start := time.Now()
	wrote, err := frame.Write(s, req)
	spent.Add(Cost{1, int64(wrote) + negotiated(p)})
	if err != nil {
		return 0, spent, CallError(ctx, err)
	}
	read, err := frame.ReadPrintable(bufio.NewReader(s), max, resp)
	if read > 0 {
		spent.Add(Cost{1, int64(read) + negotiated(p)})
	}
	if err != nil {
		return 0, spent, CallError(ctx, err)
	}
	if connected {
		rtt = time.Since(start)
	}
	return rtt, spent, nil
}

// CallError returns ctx's error if it is done, rather than its effect on the
// stream.
func CallError(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	return err
}
