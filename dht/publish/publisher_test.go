package publish

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/liveness"
	"weir/dht/pb"
)

var home = holder.ShardTopic("", "")

// A fakeHolder is the only holder of a publisher's records.
type fakeHolder struct {
	id   peer.ID
	note func(*pb.Entry) // receives each entry; nil: none are noted
	deaf bool            // datagrams get lost

	mu        sync.Mutex
	held      map[holder.Topic]capacity.Record
	sealed    map[holder.Topic][]byte
	requests  int // by stream
	datagrams int
	confirmed int // datagrams that ask for confirmation
	failing   error
	copied    int
}

func newFakeHolder() *fakeHolder {
	return &fakeHolder{id: "holder", held: make(map[holder.Topic]capacity.Record), sealed: make(map[holder.Topic][]byte)}
}

// publisher makes a publisher whose records this holder holds, in push mode.
func (h *fakeHolder) publisher(t *testing.T, sample func() (capacity.Record, []capacity.StreamInfo)) *Publisher {
	t.Helper()
	key := dhttest.Key(t)
	id := dhttest.ID(t, key)
	live := liveness.New()
	var p *Publisher
	p = New(Config{
		ID: id, Key: key, Live: live, Sharding: directory.NewSharding(id, 0, 0), Table: holder.NewTable(holder.DefaultLimits()),
		Directory: directory.New(directory.Push, directory.View{
			ID: id, Live: live, Servers: func() []peer.ID { return []peer.ID{h.id} },
		}),
		Sample: func() (capacity.Record, []capacity.StreamInfo) {
			r, streams := sample()
			for i := range streams {
				streams[i].Path = []peer.ID{id}
			}
			return r, streams
		},
		Addrs:      func() []multiaddr.Multiaddr { return nil },
		Coordinate: func() *coordinate.Coordinate { return nil },
		Wall:       func(now time.Time) time.Time { return now },
		Audience:   func() Audience { return Audience{Liveness: live.Generation()} },
		Connected:  func(peer.ID) bool { return true },
		Advertise: func(_ context.Context, _ peer.ID, entries []*pb.Entry) (*pb.AdvertiseReply, time.Duration, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.failing != nil {
				return nil, 0, h.failing
			}
			h.requests++
			reply, _ := h.take(entries)
			return reply, time.Millisecond, nil
		},
		Datagram: func(_ peer.ID, m *pb.Datagram) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.datagrams++
			if h.deaf {
				return true
			}
			reply, lacking := h.take(m.Entries)
			if m.Id != 0 {
				h.confirmed++
				go p.Answered(h.id, m.Id, reply)
				return true
			}
			for _, topic := range lacking {
				go p.Lacks(h.id, topic)
			}
			return true
		},
		Acked: func(peer.ID, *pb.AdvertiseReply, time.Duration, bool) {},
		Copied: func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.copied++
		},
		Log: slog.New(slog.DiscardHandler),
	})
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// take holds the entries, or reports the bases that it lacks.
func (h *fakeHolder) take(entries []*pb.Entry) (reply *pb.AdvertiseReply, lacking []holder.Topic) {
	reply = &pb.AdvertiseReply{}
	for _, e := range entries {
		if h.note != nil {
			h.note(e)
		}
		topic, result := holder.Topic(e.Topic), &pb.Result{}
		reply.Results = append(reply.Results, result)
		r, sealed, err := h.held[topic], e.Sealed, error(nil)
		switch {
		case len(e.Sealed) > 0:
			r, err = signed.OpenRecord(e.Sealed, time.Now())
		case len(e.Update) == 0:
			delete(h.held, topic)
			continue
		case r.Seq == 0:
			err = errors.New("nothing to update")
			lacking = append(lacking, topic)
		default:
			r, sealed, err = signed.ApplyUpdate(r, h.sealed[topic], e.Update)
		}
		if err != nil {
			result.Refused = err.Error()
			continue
		}
		h.held[topic], h.sealed[topic] = r, sealed
	}
	return reply, lacking
}

// state is a copy of the holder's state between two events.
func (h *fakeHolder) state() fakeHolder {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return fakeHolder{requests: h.requests, datagrams: h.datagrams, confirmed: h.confirmed, copied: h.copied}
}

func (h *fakeHolder) record(topic holder.Topic) capacity.Record {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held[topic]
}

// publishing runs test in a bubble beside a running publisher.
func publishing(t *testing.T, h *fakeHolder, test func(p *Publisher, change func(func(*capacity.Record)))) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		r := capacity.Record{Sessions: capacity.Usage{Limit: 10}}
		p := h.publisher(t, func() (capacity.Record, []capacity.StreamInfo) {
			mu.Lock()
			defer mu.Unlock()
			return r, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- p.Run(ctx) }()
		test(p, func(f func(*capacity.Record)) {
			mu.Lock()
			f(&r)
			mu.Unlock()
			p.Kick()
		})
		cancel()
		<-done
	})
}

// A whole record goes by stream and an update by datagram; an urgent update is
// confirmed.
func TestUpdatesGoByDatagram(t *testing.T) {
	h := newFakeHolder()
	publishing(t, h, func(p *Publisher, change func(func(*capacity.Record))) {
		if s := h.state(); s.requests != 1 || s.datagrams != 0 || h.record(home).Seq == 0 {
			t.Errorf("the first record: %d requests, %d datagrams", s.requests, s.datagrams)
		}
		select {
		case <-p.Accepted():
		default:
			t.Error("not accepted")
		}
		time.Sleep(holder.Keepalive)
		if s := h.state(); s.requests != 1 || s.datagrams != 1 || s.confirmed != 0 {
			t.Errorf("a keepalive: %d requests, %d datagrams, of which %d confirmed", s.requests, s.datagrams, s.confirmed)
		}
		time.Sleep(time.Second)
		change(func(r *capacity.Record) { r.State = capacity.Full })
		if s := h.state(); s.datagrams != 2 || s.confirmed != 1 || h.record(home).State != capacity.Full {
			t.Errorf("a node that is full now: %d datagrams, of which %d confirmed", s.datagrams, s.confirmed)
		}
		time.Sleep(time.Second)
		p.Doubt(h.id)
		if s := h.state(); s.confirmed != 2 {
			t.Errorf("after a holder failed: %d confirmed", s.confirmed)
		}
	})
}

// A datagram that should be confirmed and is not goes by stream.
func TestUnansweredDatagramIsSentByStream(t *testing.T) {
	h := newFakeHolder()
	publishing(t, h, func(_ *Publisher, change func(func(*capacity.Record))) {
		synctest.Wait()
		h.mu.Lock()
		h.deaf = true
		h.mu.Unlock()
		time.Sleep(time.Second)
		change(func(r *capacity.Record) { r.State = capacity.Full })
		if s := h.state(); s.datagrams != 1 || s.requests != 1 {
			t.Errorf("%d datagrams, %d requests", s.datagrams, s.requests)
		}
		time.Sleep(ackPatience)
		if s := h.state(); s.requests != 2 || h.record(home).State != capacity.Full {
			t.Errorf("%d requests, held: %v", s.requests, h.record(home).State)
		}
	})
}

// A holder that reports a lost record is sent all of it.
func TestHolderThatLacksTheBaseIsSentAllOfIt(t *testing.T) {
	h := newFakeHolder()
	publishing(t, h, func(*Publisher, func(func(*capacity.Record))) {
		synctest.Wait()
		h.mu.Lock()
		clear(h.held)
		h.mu.Unlock()
		time.Sleep(holder.Keepalive)
		if h.record(home).Seq != 0 {
			t.Fatal("held without a base")
		}
		time.Sleep(holder.SampleEvery)
		if s := h.state(); s.requests != 2 || h.record(home).Seq == 0 {
			t.Errorf("%d requests, held: %+v", s.requests, h.record(home))
		}
	})
}

// A failed holder is sent whole records once it is back; while the audience is
// unchanged, nothing is sent to a holder twice.
func TestHolderThatFailedIsSentAllOfIt(t *testing.T) {
	h := newFakeHolder()
	h.failing = errors.New("no")
	publishing(t, h, func(*Publisher, func(func(*capacity.Record))) {
		synctest.Wait()
		h.mu.Lock()
		h.failing = nil
		h.mu.Unlock()
		time.Sleep(holder.SampleEvery)
		if s := h.state(); s.requests != 1 || h.record(home).Seq == 0 {
			t.Errorf("%d requests, held: %+v", s.requests, h.record(home))
		}
		time.Sleep(4 * holder.SampleEvery)
		if s := h.state(); s.requests+s.datagrams != 1 {
			t.Errorf("sent %d times", s.requests+s.datagrams)
		}
	})
}

// Leave withdraws everything, and nothing starts after Close.
func TestLeave(t *testing.T) {
	h := newFakeHolder()
	publishing(t, h, func(p *Publisher, _ func(func(*capacity.Record))) {
		if h.record(home).Seq == 0 {
			t.Fatal("not held")
		}
		p.Leave()
		if h.record(home).Seq != 0 {
			t.Error("still held")
		}
		if _, ok := p.Own(); ok {
			t.Error("still published")
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		requests := h.state().requests
		p.publish(time.Now(), draft{home, capacity.Record{}})
		if h.state().requests != requests {
			t.Error("something was sent after Close")
		}
	})
}

// Only the holder asked may answer, once, and only the pending datagram.
func TestStrayAnswersAreDropped(t *testing.T) {
	var a acks
	m := &pb.Datagram{}
	answer := a.await("holder", m)
	a.answered("another", m.Id, &pb.AdvertiseReply{})
	a.answered("holder", m.Id+1, &pb.AdvertiseReply{})
	if len(answer) != 0 {
		t.Error("a stray answer is taken")
	}
	for range 2 {
		a.answered("holder", m.Id, &pb.AdvertiseReply{})
	}
	if len(answer) != 1 {
		t.Error("the answer is not taken")
	}
}
