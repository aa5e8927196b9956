package dht

import (
	"bufio"
	"context"
	"errors"
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

// errUnreachable means that there was no connection to a peer and none could
// be made.
var errUnreachable = errors.New("unreachable")

// A cost is what exchanges over streams have taken. Messages are frames, both
// ways; bytes are the frames and the negotiation of the protocol, both ways,
// without the headers of multiplexer, encryption and IP.
type cost struct {
	messages int
	bytes    int64
}

func (c *cost) add(d cost) {
	c.messages += d.messages
	c.bytes += d.bytes
}

// negotiated is what opening a stream costs in one direction: the lines
// "/multistream/1.0.0" and p, each with its length before and a newline after.
func negotiated(p protocol.ID) int64 {
	line := func(n int) int64 { return int64(protowire.SizeBytes(n + 1)) }
	return line(len("/multistream/1.0.0")) + line(len(p))
}

// callsPerPeer is how many requests to one peer may be under way. More wait,
// lest the peer refuse them.
const callsPerPeer = 24

// lanes let callsPerPeer requests to each peer pass at once.
type lanes struct {
	mu    sync.Mutex
	peers map[peer.ID]*lane
}

type lane struct {
	slots chan struct{}
	users int // in it or waiting
}

// enter waits for a place and returns what gives it back, or ctx's error.
func (l *lanes) enter(ctx context.Context, p peer.ID) (leave func(), err error) {
	l.mu.Lock()
	if l.peers == nil {
		l.peers = make(map[peer.ID]*lane)
	}
	at := l.peers[p]
	if at == nil {
		at = &lane{slots: make(chan struct{}, callsPerPeer)}
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
	case at.slots <- struct{}{}:
		return func() { <-at.slots; quit() }, nil
	case <-ctx.Done():
		quit()
		return nil, ctx.Err()
	}
}

// costOf is what sending req over p costs.
func costOf(p protocol.ID, req proto.Message) cost {
	return cost{1, int64(frame.Size(req)) + negotiated(p)}
}

// call sends req to id and reads one reply of at most max bytes into resp. It
// returns by ctx's deadline, whatever the peer does. The round trip is 0 if a
// connection had to be made first; what was spent is right also on error. If ctx
// has a trace, req is made to name it.
func (n *Node) call(ctx context.Context, id peer.ID, p protocol.ID, req, resp proto.Message, max int) (rtt time.Duration, spent cost, err error) {
	ctx, span := n.asking(ctx, id, req)
	defer func() { heardBack(span, resp, err) }()
	leave, err := n.lanes.enter(ctx, id)
	if err != nil {
		// We were too busy; that is not the peer's silence.
		return 0, spent, fmt.Errorf("%w: %d requests under way: %w", network.ErrResourceLimitExceeded, callsPerPeer, err)
	}
	defer leave()
	connected := n.host.Network().Connectedness(id) == network.Connected
	s, err := n.host.NewStream(ctx, id, p)
	if err != nil {
		err = callError(ctx, err)
		if n.host.Network().Connectedness(id) != network.Connected && ctx.Err() == nil {
			err = fmt.Errorf("%w: %w", errUnreachable, err)
		}
		return 0, spent, err
	}
	// Reset, unlike Close, never waits for the peer; after the reply has
	// been read, Close does not either.
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
	spent.add(cost{1, int64(wrote) + negotiated(p)})
	if err != nil {
		return 0, spent, callError(ctx, err)
	}
	read, err := frame.ReadPrintable(bufio.NewReader(s), max, resp)
	if read > 0 {
		spent.add(cost{1, int64(read) + negotiated(p)})
	}
	if err != nil {
		return 0, spent, callError(ctx, err)
	}
	if connected {
		rtt = time.Since(start)
	}
	return rtt, spent, nil
}

// callError prefers the context's reason over what it did to the stream.
func callError(ctx context.Context, err error) error {
	if cause := ctx.Err(); cause != nil {
		return cause
	}
	return err
}
