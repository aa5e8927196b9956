package records

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/capacitytest"
	"weir/dht/directory"
	"weir/dht/holding"
	"weir/dht/liveness"
	"weir/dht/pb"
)

// members are the nodes of a network, by what comes of verifying them.
type members struct {
	mu       sync.Mutex
	verified []peer.ID
	strange  peer.ID // is no node of this network
}

func (m *members) Answered(peer.ID, time.Duration) {}
func (m *members) Verify(_ context.Context, ai peer.AddrInfo) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.verified = append(m.verified, ai.ID)
	if ai.ID == m.strange {
		return errors.New("of another network")
	}
	return nil
}

// Of the holders that one names, those count that prove to be nodes of this
// network; no more are tried than one may name.
func TestAcks(t *testing.T) {
	now := time.Now()
	self, from, down := capacitytest.ID(t, "self"), capacitytest.ID(t, "from"), capacitytest.ID(t, "down")
	net := &members{strange: capacitytest.ID(t, "strange")}
	live, cache := liveness.New(), directory.NewCache()
	cache.Use(now, home)
	live.Failed(now, down, liveness.NoConnection)
	var tasks sync.WaitGroup
	var accepted []peer.ID
	var observed *coordinate.Coordinate
	a := &Acks{
		Self: self, Peers: net, Live: live, Cache: cache,
		Directory: directory.New(directory.Kademlia, directory.View{ID: self, Live: live, Cache: cache, Member: func(peer.ID) bool { return true }}),
		Observe:   func(_ peer.ID, at *coordinate.Coordinate, _ time.Duration) { observed = at },
		Accepted:  func(p peer.ID) { accepted = append(accepted, p) },
		Go: func(f func(context.Context)) bool {
			tasks.Go(func() { f(t.Context()) })
			return true
		},
		Log: slog.New(slog.DiscardHandler),
	}
	reply := &pb.AdvertiseReply{Closer: []*pb.Peer{{Id: []byte("x")}, {Id: []byte(self)}, {Id: []byte(down)}, {Id: []byte(net.strange)}}}
	var good []peer.ID
	for i := range holding.MaxCloser {
		id := capacitytest.ID(t, fmt.Sprint("good", i))
		good = append(good, id)
		reply.Closer = append(reply.Closer, &pb.Peer{Id: []byte(id)})
	}
	a.Take(from, reply, time.Millisecond, true)
	tasks.Wait()
	tried := holding.MaxCloser - 4 // so many good ones are among the first
	for _, id := range slices.Concat(good, []peer.ID{self, down, net.strange}) {
		want := slices.Contains(good[:tried], id)
		if got := slices.Contains(cache.Peek(home), id); got != want {
			t.Errorf("%s counts as a holder: %v, want %v", id, got, want)
		}
	}
	if slices.Contains(net.verified, self) || slices.Contains(net.verified, down) {
		t.Errorf("asked were %v", net.verified)
	}
	if !slices.Equal(accepted, []peer.ID{from}) || observed != nil {
		t.Errorf("accepted by %v, a coordinate %v", accepted, observed)
	}
}
