package records

import (
	"log/slog"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/frame"
	cpb "weir/capacity/pb"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/liveness"
	"weir/dht/naming"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/seek"
)

// home is where a record of capacitytest belongs.
var home = holder.ShardTopic("eu", "")

// own are a node's records: its capacity, and the stream "a".
type own struct {
	record capacity.Record
	sealed []byte
}

func (o own) Own() (capacity.Record, bool) { return o.record, true }
func (o own) Sealed(most int) [][]byte {
	return [][]byte{o.sealed, o.sealed}[:max(0, min(most, 2))]
}
func (o own) Published(topic holder.Topic) (capacity.Record, []byte, bool) {
	return o.record, o.sealed, topic == holder.StreamTopic("a")
}

func record(tb testing.TB, name string) (capacity.Record, []byte) {
	tb.Helper()
	r := capacitytest.Record(tb, name)
	r.Issued, r.TTL = time.UnixMilli(time.Now().UnixMilli()), capacity.MaxTTL
	sealed, err := signed.SealRecord(r, capacitytest.Key(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	return r, sealed
}

// newServer makes the server of a node that holds the records of all.
func newServer(tb testing.TB) *Server {
	tb.Helper()
	compiled, err := policy.Compile(policy.Default())
	if err != nil {
		tb.Fatal(err)
	}
	r, sealed := record(tb, "me")
	live, table := liveness.New(), holder.NewTable(holder.DefaultLimits())
	dir := directory.New(directory.Push, directory.View{ID: r.Node, Live: live, Servers: func() []peer.ID { return []peer.ID{r.Node} }})
	sharding := directory.NewSharding(r.Node, 0, 0)
	wall := func(now time.Time) time.Time { return now }
	introduce := func(id peer.ID) *pb.Peer { return pb.PeerOf(peer.AddrInfo{ID: id}) }
	return NewServer(Config{
		Inbound: &overlay.Server{},
		Holding: holding.New(holding.Config{
			ID: r.Node, NetworkID: "net", Directory: dir, Sharding: sharding, Table: table, Reports: holder.NewReports(), Rates: &holder.RateLimit{},
			Policy: func() *policy.Compiled { return compiled }, Wall: wall, Introduce: introduce,
			Accepted: func(peer.ID) {}, Left: live.Leave, Log: slog.New(slog.DiscardHandler),
		}),
		Names: naming.New(naming.Config{
			ID: r.Node, Directory: dir, Live: live, Table: table, Introduce: introduce, Tracer: noop.Tracer{},
			Published: func(holder.Topic) (capacity.Record, bool) { return capacity.Record{}, false },
		}),
		Own: own{r, sealed}, Table: table, Mode: directory.Push,
		Coordinate: func() *coordinate.Coordinate { return coordinate.NewCoordinate(coordinate.DefaultConfig()) },
		Wall:       wall,
		Go:         func(f func()) bool { go f(); return true },
		Log:        slog.New(slog.DiscardHandler),
	})
}

func fetch(topic string, most uint32) *pb.Request {
	return &pb.Request{Op: &pb.Request_Fetch{Fetch: &pb.Fetch{Topic: topic, Max: most}}}
}

func claim(topic string) *pb.Request {
	return &pb.Request{Op: &pb.Request_Claim{Claim: &pb.Claim{Topic: topic, Intent: pb.Claim_TAKE}}}
}

func advertise(sealed []byte) *pb.Request {
	return &pb.Request{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: []*pb.Entry{{Topic: string(home), Sealed: sealed}}}}}
}

// A node tells its own records and its status to whoever asks.
func TestFetch(t *testing.T) {
	s := newServer(t)
	asker := capacitytest.ID(t, "asker")
	_, sealed := record(t, "asker")
	s.Answer(t.Context(), asker, advertise(sealed))
	for name, c := range map[string]struct {
		req  *pb.Request
		want int
	}{
		"all":                        {fetch("", 64), 2},
		"one":                        {fetch("", 1), 1},
		"none":                       {fetch("", 0), 0},
		"more than there may be":     {fetch("", 1<<31), 2},
		"of a stream":                {fetch("stream/a", 1), 1},
		"of one that is not here":    {fetch("stream/b", 1), 0},
		"of a stream, its load only": {fetch("stream/a", 0), 0},
	} {
		reply := s.Answer(t.Context(), asker, c.req).GetFetch()
		if len(reply.GetSealed()) != c.want {
			t.Errorf("%s: %d records, want %d", name, len(reply.GetSealed()), c.want)
		}
		if reply.GetMode() != "push" || reply.GetHeldTopics() != 1 || reply.GetHeldRecords() != 1 || reply.GetName() != "sfu7" || time.Since(time.UnixMilli(reply.GetNowMs())).Abs() > time.Minute {
			t.Errorf("%s: %v", name, reply)
		}
	}
}

// Only a stream's name can be claimed; nothing else is taken for one.
func TestClaimOfNoStream(t *testing.T) {
	s := newServer(t)
	asker := capacitytest.ID(t, "asker")
	for topic, ok := range map[string]bool{"stream/a": true, "capacity/eu/*": false, "regions": false, "nonsense": false, "": false} {
		resp := s.Answer(t.Context(), asker, claim(topic))
		if (resp.Error == "") != ok || (resp.GetClaim() != nil) != ok {
			t.Errorf("%q: %v", topic, resp)
		}
	}
}

// A holder answers every input of a peer within its own limits, and holds no
// record of that peer's but its own.
func FuzzAnswer(f *testing.F) {
	s := newServer(f)
	from := capacitytest.ID(f, "from")
	r, sealed := record(f, "from")
	next := r
	next.Seq++
	update, err := signed.SealUpdate(capacity.Record{}, sealed, next, capacitytest.Key(f, "from"))
	if err != nil {
		f.Fatal(err)
	}
	query := func(q *pb.Query) *pb.Request { return &pb.Request{Op: &pb.Request_Query{Query: q}} }
	capacities := string(holder.CapacityTopic())
	for _, m := range []*pb.Request{
		{},
		advertise(sealed),
		{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: []*pb.Entry{{Topic: string(home), Update: update}}}}},
		{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: []*pb.Entry{{Topic: "capacity/*/*", Sealed: []byte("x"), Known: make([]byte, 32)}, {Topic: "stream/a", Seq: 9}}}}},
		{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: []*pb.Entry{{Topic: "capacity/eu/01", Deeper: true}, {Topic: "regions", Sealed: []byte("x")}}}}},
		query(&pb.Query{
			Topic: "capacity/*/*", Need: &cpb.Need{Purpose: 2, Stream: "a", Uplink: 1, Packets: 1, Region: "eu"},
			Exclude: [][]byte{{1}}, Origin: &cpb.Coordinate{Vec: make([]float32, 8), Height: 1}, Limit: 3, Explain: true,
		}),
		query(&pb.Query{Topic: capacities, Need: &cpb.Need{Uplink: 1 << 62, Packets: 1 << 62}}),
		query(&pb.Query{Topic: capacities, Need: &cpb.Need{}, Reports: []*pb.Report{{Node: []byte("\x00\x04node"), Trust: 2_500}, {Node: []byte("\x00\x05other")}}}),
		query(&pb.Query{Topic: capacities, Need: &cpb.Need{}, Reports: []*pb.Report{{Node: []byte("\x00\x04node"), Trust: 1 << 31}}}),
		query(&pb.Query{Topic: "regions", Need: &cpb.Need{}, Limit: 1 << 31}),
		query(&pb.Query{Topic: capacities, Need: &cpb.Need{}, Sealed: true}),
		fetch("", 1<<31),
		fetch("stream/a", 1),
		{Op: &pb.Request_Watch{Watch: &pb.Watch{Topic: "stream/a"}}},
		{Op: &pb.Request_Claim{Claim: &pb.Claim{Topic: "stream/a", Intent: pb.Claim_TAKE, Known: []byte{1, 2, 3, 4}}}},
		{Op: &pb.Request_HandOver{HandOver: &pb.HandOver{Topic: "capacity/*/*", Copies: []*pb.Copy{{Sealed: []byte("x"), HeldMs: 1 << 31}}}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req pb.Request
		if len(b) > MaxRequest || proto.Unmarshal(b, &req) != nil {
			return
		}
		resp := s.Answer(t.Context(), from, &req)
		limit := maxAdvertiseReply
		switch req.Op.(type) {
		case *pb.Request_Query, *pb.Request_Claim:
			limit = seek.MaxQueryReply
		case *pb.Request_Fetch:
			limit = maxFetchReply
		}
		sent, err := frame.Append(nil, resp)
		if err != nil || len(sent) > limit {
			t.Fatalf("answer of %d bytes, at most %d: %v", len(sent), limit, err)
		}
		for topic, records := range s.cfg.Table.All(time.Now()) {
			for _, h := range records {
				if h.Node() != from {
					t.Fatalf("a record of %s in %s came from %s", h.Node(), topic, from)
				}
			}
		}
	})
}

// Whatever a watched holder sends, what is passed on names a node, or says why
// it is no record.
func FuzzEvent(f *testing.F) {
	r, sealed := record(f, "publisher")
	for _, m := range []*pb.Event{{}, {Synced: true, Split: true}, {Gone: []byte(r.Node)}, {Gone: []byte("x")}, {Sealed: sealed, HeldMs: 7}, {Sealed: sealed[:100]}} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m pb.Event
		if proto.Unmarshal(b, &m) != nil {
			return
		}
		e, ok, err := eventFromWire(time.Now(), home, &m)
		if ok && (err != nil || !e.Synced && e.Err == nil && e.Node.Validate() != nil) {
			t.Fatalf("event %+v, %v", e, err)
		}
		if ok && !e.Synced && !e.Gone && e.Err == nil && home.Fits(&e.Record) != nil {
			t.Fatalf("kept %+v", e.Record)
		}
	})
}
