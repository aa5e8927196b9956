package seek

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/liveness"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/place"
	"weir/dht/vivaldi"
)

// A wire is an [Overlay] whose peers are functions.
type wire struct {
	ctx   context.Context
	tasks sync.WaitGroup
	peers map[peer.ID]func(req, resp proto.Message)
}

func (w *wire) Context() context.Context { return w.ctx }

func (w *wire) Go(f func()) bool {
	w.tasks.Go(f)
	return true
}

func (w *wire) Call(ctx context.Context, p peer.ID, _ protocol.ID, req, resp proto.Message, _ int) (time.Duration, overlay.Cost, error) {
	answer, ok := w.peers[p]
	if !ok {
		return 0, overlay.Cost{}, errors.New("no such peer")
	}
	done := make(chan proto.Message, 1)
	fresh := resp.ProtoReflect().New().Interface()
	go func() {
		answer(req, fresh)
		done <- fresh
	}()
	select {
	case m := <-done:
		proto.Merge(resp, m)
		return time.Millisecond, overlay.Cost{Messages: 2}, nil
	case <-ctx.Done():
		return 0, overlay.Cost{Messages: 1}, ctx.Err()
	}
}

// known is a [Peers] in which every peer is connected.
type known struct{}

func (known) Connected(peer.ID) bool               { return true }
func (known) Learn(peer.ID, []multiaddr.Multiaddr) {}
func (known) Locate(context.Context, peer.ID)      {}
func (known) Deadline(peer.ID) time.Duration       { return time.Second }
func (known) Answered(peer.ID, time.Duration)      {}
func (known) Failed(peer.ID, error)                {}

// newSeeker makes the seeker of a client that knows only the given holders.
func newSeeker(t *testing.T, holders ...peer.ID) (*Seeker, *wire) {
	t.Helper()
	id, _ := newID(t)
	ctx, cancel := context.WithCancel(t.Context())
	w := &wire{ctx: ctx, peers: make(map[peer.ID]func(req, resp proto.Message))}
	t.Cleanup(func() { cancel(); w.tasks.Wait() })
	compiled, err := policy.Compile(policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	coords, err := vivaldi.New()
	if err != nil {
		t.Fatal(err)
	}
	judge := func() *policy.Compiled { return compiled }
	live, cache, sharding := liveness.New(), directory.NewCache(), directory.NewSharding(id, 0, 0)
	dir := directory.New(directory.Push, directory.View{
		ID: id, Client: true, Live: live, Servers: func() []peer.ID { return holders }, Cache: cache,
		Home: sharding.Home, Member: func(peer.ID) bool { return true },
	})
	table := holder.NewTable(holder.DefaultLimits())
	return New(Config{
		ID: id, Client: true, Discovery: directory.Push,
		Overlay: w, Records: "/records", Reserves: "/reserve", Peers: known{}, Live: live, Coordinates: coords,
		Directory: dir, Cache: cache, Sharding: sharding,
		LookUps: &directory.LookUps{Cache: cache, Whole: dir.Complete, Home: sharding.Home, Alone: func() bool { return true }, Log: slog.New(slog.DiscardHandler)},
		Table:   table, Holding: holding.New(holding.Config{ID: id, Directory: dir, Sharding: sharding, Table: table, Reports: holder.NewReports(), Policy: judge}),
		Newest: place.NewMemory(), Reputation: holder.NewReputation(), Policy: judge,
		Own:       func() (capacity.Record, bool) { return capacity.Record{}, false },
		Published: func(holder.Topic) (capacity.Record, []byte, bool) { return capacity.Record{}, nil, false },
		Use:       func(holder.Topic) []byte { return nil },
		WarmedUp:  func() bool { return false },
		Measure:   func(context.Context, peer.ID) error { return nil },
		Reachable: func(capacity.Need, *capacity.Record) error { return nil },
		Wall:      func(now time.Time) time.Time { return now },
		Log:       slog.New(slog.DiscardHandler), Tracer: noop.Tracer{},
	}), w
}

func newID(t *testing.T) (peer.ID, crypto.PrivKey) {
	t.Helper()
	key := dhttest.Key(t)
	id := dhttest.ID(t, key)
	return id, key
}

func view() capacity.Need {
	return capacity.Need{Purpose: capacity.View, Stream: "a", Uplink: 1_000_000}
}

// A target grants leases once its gate is closed, and notes its requests.
type target struct {
	record capacity.Record
	sealed []byte

	mu                 sync.Mutex
	reserved, released []string
}

// newTarget adds to w a target that answers s once gate is closed.
func newTarget(t *testing.T, s *Seeker, w *wire, gate <-chan struct{}) *target {
	t.Helper()
	id, key := newID(t)
	now := time.Now()
	addr, err := multiaddr.NewMultiaddr("/ip4/127.0.0.1/udp/4001/quic-v1")
	if err != nil {
		t.Fatal(err)
	}
	a := &target{record: capacity.Record{
		Node: id, Seq: uint64(now.UnixMilli()), Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.DefaultTTL,
		Addrs: []multiaddr.Multiaddr{addr}, URL: "http://127.0.0.1:9999", Sessions: capacity.Usage{Limit: 10},
	}}
	if a.sealed, err = signed.SealRecord(a.record, key); err != nil {
		t.Fatal(err)
	}
	w.peers[id] = func(req, resp proto.Message) {
		switch op := req.(*pb.ReserveRequest).Op.(type) {
		case *pb.ReserveRequest_Release:
			a.mu.Lock()
			a.released = append(a.released, op.Release.Id)
			a.mu.Unlock()
		case *pb.ReserveRequest_Reserve:
			a.mu.Lock()
			a.reserved = append(a.reserved, op.Reserve.Id)
			a.mu.Unlock()
			<-gate
			sealed, err := signed.SealLease(capacity.Lease{
				ID: op.Reserve.Id, Target: id, From: s.cfg.ID, Need: view(),
				Expires: time.UnixMilli(time.Now().Add(5 * time.Second).UnixMilli()),
			}, key)
			if err != nil {
				t.Errorf("lease: %v", err)
			}
			resp.(*pb.ReserveResponse).Lease = sealed
		}
	}
	return a
}

func (a *target) offer() offer {
	return holder.OfferOf(policy.Evaluation{Candidate: policy.Candidate{Record: a.record, Sealed: a.sealed, Trust: 1}})
}

func (a *target) seen() (reserved, released []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.reserved), slices.Clone(a.released)
}

// Others are asked before silent candidates have used all their time, and late
// leases of the silent ones are released.
func TestPlacementGoesOnPastTheSilent(t *testing.T) {
	s, w := newSeeker(t)
	decided, open := make(chan struct{}), make(chan struct{})
	close(open)
	var offers []offer
	var silent []*target
	for range place.ReserveMost {
		a := newTarget(t, s, w, decided)
		offers, silent = append(offers, a.offer()), append(silent, a)
	}
	good := newTarget(t, s, w, open)
	d := Decision{Topic: holder.CapacityTopic()}
	r := s.newReservation(t.Context(), view(), &d)
	r.placement.Further = true
	r.placement.Start()
	step, err := r.reserve(t.Context(), r.placement.Found(time.Now(), offers, 1))
	if err != nil || step.Search == nil || r.placement.Pending() != place.ReserveMost {
		t.Fatalf("%v while %d are waited for; %+v, reservations %+v", err, r.placement.Pending(), step, d.Reservations)
	}
	placed, err := r.run(t.Context(), r.placement.Found(time.Now(), []offer{good.offer()}, 2))
	if err != nil || placed.Lease.Target != good.record.Node {
		t.Fatalf("placed on %s, %v; reservations %+v", placed.Lease.Target, err, d.Reservations)
	}
	r.end()
	close(decided)
	w.tasks.Wait()
	for i, a := range silent {
		if reserved, released := a.seen(); len(reserved) != 1 || !slices.Equal(reserved, released) {
			t.Errorf("%d: reserved %v, released %v", i, reserved, released)
		}
	}
}

// Two holders' answers lead to the node they name; if none answers, the result
// is not known.
func TestPlaceByWhatHoldersSay(t *testing.T) {
	var holders []peer.ID
	for range 2 {
		id, _ := newID(t)
		holders = append(holders, id)
	}
	s, w := newSeeker(t, holders...)
	open := make(chan struct{})
	close(open)
	good := newTarget(t, s, w, open)
	for _, h := range holders {
		w.peers[h] = func(req, resp proto.Message) {
			q := req.(*pb.Request).GetQuery()
			if q == nil || q.Topic != string(holder.CapacityTopic()) {
				t.Errorf("asked %v", req)
			}
			resp.(*pb.Response).Op = &pb.Response_Query{Query: &pb.QueryReply{Held: 1, Sealed: [][]byte{good.sealed}}}
		}
	}
	a, err := s.Find(t.Context(), holder.CapacityTopic(), view(), nil)
	if err != nil || len(a.Candidates) != 1 || a.Candidates[0].Record.Node != good.record.Node {
		t.Fatalf("found %+v, %v", a, err)
	}
	placed, d, err := s.Place(t.Context(), holder.CapacityTopic(), view(), nil)
	if err != nil || placed.Lease.Target != good.record.Node || d.Chosen != good.record.Node {
		t.Fatalf("placed %+v, %v; %+v", placed, err, d)
	}
	for _, h := range holders {
		w.peers[h] = func(_, resp proto.Message) { resp.(*pb.Response).Error = "no" }
	}
	if _, d, err = s.Place(t.Context(), holder.StreamTopic("x"), view(), nil); !errors.Is(err, place.ErrUnanswered) || d.Refused != NotKnown {
		t.Errorf("nobody answered: %v, %s", err, d.Refused)
	}
}

// A holder that is left alone after a failure counts as silent where the others
// are too few for an answer, as long as it may have records that they lack. A
// placement does not wait for it.
func TestLeftAloneIsSilent(t *testing.T) {
	for _, c := range []struct {
		name    string
		topic   holder.Topic
		holders int             // one of which is down
		failed  []time.Duration // ago
		known   bool            // that there is nothing
		asked   bool            // the one that is down
	}{
		{"the other of two says that there is no room", holder.CapacityTopic(), 2, []time.Duration{0}, false, false},
		{"two of three do", holder.CapacityTopic(), 3, []time.Duration{0}, true, false},
		{"the other of two does not have the stream", holder.StreamTopic("x"), 2, []time.Duration{0}, false, true},
		{"two of three do not", holder.StreamTopic("x"), 3, []time.Duration{0}, true, true},
		{"three of five do not", holder.StreamTopic("x"), 5, []time.Duration{0}, true, false},
		{"it has been silent for a record's life", holder.CapacityTopic(), 2, []time.Duration{20 * time.Second, 14 * time.Second, 3 * time.Second}, true, false},
		{"so long, and may have had the stream", holder.StreamTopic("x"), 2, []time.Duration{20 * time.Second, 14 * time.Second, 3 * time.Second}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var holders []peer.ID
			for range c.holders {
				id, _ := newID(t)
				holders = append(holders, id)
			}
			s, w := newSeeker(t, holders...)
			down := holders[0]
			for _, ago := range c.failed {
				s.cfg.Live.Failed(time.Now().Add(-ago), down, liveness.NoConnection)
			}
			for _, h := range holders[1:] {
				w.peers[h] = func(_, resp proto.Message) {
					resp.(*pb.Response).Op = &pb.Response_Query{Query: &pb.QueryReply{}}
				}
			}
			a, err := s.Find(t.Context(), c.topic, view(), nil)
			asked := slices.ContainsFunc(a.Asked, func(x Asked) bool { return x.Holder == down })
			if c.known != (err == nil) || asked != c.asked {
				t.Errorf("%v, %v, asked it: %v", err, a.Hearing, asked)
			}
			var unanswered *place.Unanswered
			if !c.known && (!errors.As(err, &unanswered) || len(unanswered.Hearing.Silent) != 1 || unanswered.Hearing.Silent[0].Node != down) {
				t.Errorf("%v", err)
			}
		})
	}
}
