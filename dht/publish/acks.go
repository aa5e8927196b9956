package publish

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/pb"
)

// acks are the datagrams whose answer is pending, at most one per holder.
type acks struct {
	mu   sync.Mutex
	last uint32
	open map[peer.ID]pendingAck
}

type pendingAck struct {
	id     uint32
	answer chan *pb.AdvertiseReply // of one
}

// await gives m, a datagram to p, an ID and returns the channel of its answer.
func (a *acks) await(p peer.ID, m *pb.Datagram) <-chan *pb.AdvertiseReply {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last++; a.last == 0 {
		a.last++
	}
	if a.open == nil {
		a.open = make(map[peer.ID]pendingAck)
	}
	m.Id = a.last
	a.open[p] = pendingAck{a.last, make(chan *pb.AdvertiseReply, 1)}
	return a.open[p].answer
}

func (a *acks) forget(p peer.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, p)
}

// answered takes in p's answer to the datagram with that ID. Unexpected answers
// are dropped.
func (a *acks) answered(p peer.ID, id uint32, reply *pb.AdvertiseReply) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if open, waits := a.open[p]; waits && open.id == id {
		open.answer <- reply
		delete(a.open, p)
	}
}
