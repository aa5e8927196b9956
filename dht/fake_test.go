package dht

import (
	"bufio"
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/holding"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/records"
	"weir/dht/reserve"
)

// A fake is a host in the routing tables of a network whose handlers a test
// chooses.
type fake struct {
	key  crypto.PrivKey
	host host.Host
	seq  uint64
}

const (
	testRecords  protocol.ID = "/records/1"
	testReserves protocol.ID = "/reserve/1"
)

func testProtocol(p protocol.ID) protocol.ID { return protocolPrefix(NetworkID("test")) + p }

// newFake makes a fake that knows member. Handlers are by protocol without
// prefix.
func newFake(t testing.TB, member peer.AddrInfo, handlers map[protocol.ID]network.StreamHandler) *fake {
	t.Helper()
	key := dhttest.Key(t)
	addrs, options := listen(t)
	o, err := overlay.New(overlay.Config{Key: key, Prefix: protocolPrefix(NetworkID("test")), Listen: addrs, Libp2p: options})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = o.Close() })
	h := o.Host
	for p, f := range handlers {
		h.SetStreamHandler(testProtocol(p), f)
	}
	if err := o.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), dhttest.Patience)
	defer cancel()
	if err := h.Connect(ctx, member); err != nil {
		t.Fatal(err)
	}
	return &fake{key: key, host: h}
}

// connect has n connect to f.
func (n *testNode) connect(t testing.TB, f *fake) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dhttest.Patience)
	defer cancel()
	if err := n.Host().Connect(ctx, peer.AddrInfo{ID: f.host.ID(), Addrs: f.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
}

// nearest makes n measure the given peers as the nearest, with no answers
// overdue.
func (n *testNode) nearest(peers []peer.ID) {
	for _, p := range peers {
		n.peers.Live.Answered(time.Now(), p, time.Microsecond)
	}
}

// call sends one request to id and returns the reply.
func (f *fake) call(t testing.TB, id peer.ID, req *pb.Request) *pb.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), dhttest.Patience)
	defer cancel()
	s, err := f.host.NewStream(ctx, id, testProtocol(testRecords))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Reset() }()
	_ = s.SetDeadline(time.Now().Add(dhttest.Patience))
	if _, err := frame.Write(s, req); err != nil {
		t.Fatal(err)
	}
	var resp pb.Response
	if _, err := frame.ReadPrintable(bufio.NewReader(s), records.MaxRequest, &resp); err != nil {
		t.Fatal(err)
	}
	return &resp
}

// record is a valid capacity record of the fake's, newer than the one before.
func (f *fake) record() capacity.Record {
	f.seq = max(uint64(time.Now().UnixMilli()), f.seq+1)
	return capacity.Record{
		Node:     f.host.ID(),
		Seq:      f.seq,
		Issued:   time.UnixMilli(time.Now().UnixMilli()),
		TTL:      capacity.DefaultTTL,
		Addrs:    f.host.Addrs(),
		URL:      "http://127.0.0.1:9999",
		Sessions: capacity.Usage{Limit: 10},
	}
}

func seal(t testing.TB, r capacity.Record, key crypto.PrivKey) []byte {
	t.Helper()
	sealed, err := signed.SealRecord(r, key)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// advertise stores the fake's record at each of the nodes.
func (f *fake) advertise(t testing.TB, nodes ...*testNode) {
	t.Helper()
	sealed := seal(t, f.record(), f.key)
	for _, n := range nodes {
		f.host.Peerstore().AddAddrs(n.ID(), n.Host().Addrs(), time.Hour)
		resp := f.call(t, n.ID(), advertisement(&pb.Entry{Topic: string(testHome), Sealed: sealed}))
		for _, r := range resp.GetAdvertise().GetResults() {
			if r.Refused != "" {
				t.Fatalf("record of the fake refused: %s", r.Refused)
			}
		}
	}
}

func advertisement(entries ...*pb.Entry) *pb.Request {
	return &pb.Request{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: entries}}}
}

// Stream handlers of a fake.

// hang reads and never answers.
func hang(s network.Stream) {
	_, _ = io.Copy(io.Discard, s) // ends with the stream
}

// say answers every request with b.
func say(b []byte) network.StreamHandler {
	return func(s network.Stream) {
		var req pb.Request
		_, _ = frame.ReadPrintable(bufio.NewReader(s), records.MaxRequest, &req)
		_, _ = s.Write(b)
		_ = s.CloseWrite()
		hang(s)
	}
}

// answer answers every request with what f returns.
func answer(f func(peer.ID, *pb.Request) *pb.Response) network.StreamHandler {
	return func(s network.Stream) {
		var req pb.Request
		if _, err := frame.ReadPrintable(bufio.NewReader(s), records.MaxRequest, &req); err != nil {
			_ = s.Reset()
			return
		}
		_, _ = frame.Write(s, f(s.Conn().RemotePeer(), &req))
		_ = s.Close()
	}
}

// A clerk is a fake's handler of /reserve/1: it records the requests and
// answers with reply's result, once reply returns.
type clerk struct {
	reply func(from peer.ID, req *pb.Reserve) *pb.ReserveResponse

	mu       sync.Mutex
	reserved []string
	released []string
}

func (c *clerk) handle(s network.Stream) {
	var req pb.ReserveRequest
	if _, err := frame.ReadPrintable(bufio.NewReader(s), reserve.MaxMessage, &req); err != nil {
		_ = s.Reset()
		return
	}
	resp := &pb.ReserveResponse{}
	switch op := req.Op.(type) {
	case *pb.ReserveRequest_Reserve:
		c.mu.Lock()
		c.reserved = append(c.reserved, op.Reserve.Id)
		c.mu.Unlock()
		resp = c.reply(s.Conn().RemotePeer(), op.Reserve)
	case *pb.ReserveRequest_Release:
		c.mu.Lock()
		c.released = append(c.released, op.Release.Id)
		c.mu.Unlock()
	}
	if resp == nil {
		hang(s)
		return
	}
	_, _ = frame.Write(s, resp)
	_ = s.Close()
}

func (c *clerk) seen() (reserved, released []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.reserved...), append([]string(nil), c.released...)
}

// lease makes a valid lease of the fake's for req.
func (f *fake) lease(t testing.TB, from peer.ID, req *pb.Reserve) []byte {
	need, err := holding.NeedFromWire(req.Need)
	if err != nil {
		t.Errorf("need: %v", err)
	}
	sealed, err := signed.SealLease(capacity.Lease{
		ID:      req.Id,
		Target:  f.host.ID(),
		From:    from,
		Need:    need,
		Expires: time.UnixMilli(time.Now().Add(5 * time.Second).UnixMilli()),
	}, f.key)
	if err != nil {
		t.Errorf("lease: %v", err)
	}
	return sealed
}

// answers is the node's answer to a request of /records/1 from a peer.
func (n *testNode) answers(from peer.ID, req *pb.Request) *pb.Response {
	return overlay.Answer(n.Overlay.Server, from, req, n.records.Answer)
}

// answersReserve is the node's answer to a request of /reserve/1 from a peer.
func (n *testNode) answersReserve(from peer.ID, req *pb.ReserveRequest) *pb.ReserveResponse {
	return overlay.Answer(n.Overlay.Server, from, req, n.reserve.Answer)
}
