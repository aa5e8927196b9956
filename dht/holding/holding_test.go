package holding

import (
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	cpb "weir/capacity/pb"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/liveness"
	"weir/dht/pb"
)

var (
	home = holder.ShardTopic("", "")
	now  = time.UnixMilli(1_700_000_000_000)
)

// A publisher makes its own records.
type publisher struct {
	t   testing.TB
	id  peer.ID
	key crypto.PrivKey
}

func newPublisher(t testing.TB) *publisher {
	t.Helper()
	key := dhttest.Key(t)
	id := dhttest.ID(t, key)
	return &publisher{t, id, key}
}

func (p *publisher) record(seq uint64) capacity.Record {
	return capacity.Record{
		Node: p.id, Seq: seq, Issued: now, TTL: capacity.DefaultTTL, URL: "http://192.0.2.1",
		Sessions: capacity.Usage{Limit: 10},
	}
}

func (p *publisher) seal(r capacity.Record) []byte {
	p.t.Helper()
	b, err := signed.SealRecord(r, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func (p *publisher) entry(seq uint64) *pb.Entry {
	return &pb.Entry{Topic: string(home), Sealed: p.seal(p.record(seq))}
}

func (p *publisher) update(base []byte, r capacity.Record) []byte {
	p.t.Helper()
	b, err := signed.SealUpdate(capacity.Record{}, base, r, p.key)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

// newHolder makes a holder, one of the servers in mode.
func newHolder(t testing.TB, mode directory.Mode, change func(*Config)) *Holder {
	t.Helper()
	compiled, err := policy.Compile(policy.Default())
	if err != nil {
		t.Fatal(err)
	}
	live := liveness.New()
	cfg := Config{
		ID: "me", NetworkID: "net", Table: holder.NewTable(holder.DefaultLimits()),
		Directory: directory.New(mode, directory.View{
			ID: "me", Live: live, Servers: func() []peer.ID { return []peer.ID{"me"} },
		}),
		Sharding: directory.NewSharding("me", 0, 0), Reports: holder.NewReports(), Rates: &holder.RateLimit{},
		Policy:    func() *policy.Compiled { return compiled },
		Wall:      func(now time.Time) time.Time { return now },
		Introduce: func(id peer.ID) *pb.Peer { return &pb.Peer{Id: []byte(id)} },
		Accepted:  func(peer.ID) {},
		Left:      func(time.Time, peer.ID) {},
		Log:       slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}
	return New(cfg)
}

func TestAdvertise(t *testing.T) {
	p, other := newPublisher(t), newPublisher(t)
	late := p.record(1)
	late.Issued = now.Add(-capacity.MaxClockSkew - time.Hour)
	for _, c := range []struct {
		name string
		mode directory.Mode
		e    *pb.Entry
		want string // part of why it is refused; "": accepted
	}{
		{"a record", directory.Push, p.entry(1), ""},
		{"of another node", directory.Push, other.entry(1), ErrNotYours.Error()},
		{"in no topic", directory.Push, &pb.Entry{Topic: "x", Sealed: p.seal(p.record(1))}, "unknown topic"},
		{"in the topic of another region", directory.Push, &pb.Entry{Topic: string(holder.ShardTopic("eu", "")), Sealed: p.seal(p.record(1))}, holder.ErrWrongTopic.Error()},
		{"one that has run out", directory.Push, &pb.Entry{Topic: string(home), Sealed: p.seal(late)}, capacity.ErrExpired.Error()},
		{"nonsense", directory.Push, &pb.Entry{Topic: string(home), Sealed: []byte("x")}, capacity.ErrMalformed.Error()},
		{"an update of nothing", directory.Push, &pb.Entry{Topic: string(home), Update: []byte("x")}, ErrNothingToUpdate.Error()},
		{"at a node that holds nothing", directory.Pull, p.entry(1), directory.ErrNotHolder.Error()},
		{"a split notice of another shard", directory.Push, &pb.Entry{Topic: string(holder.ShardTopic("", otherBit(p.id))), Deeper: true}, holder.ErrWrongTopic.Error()},
	} {
		reply, err := newHolder(t, c.mode, nil).Advertise(now, p.id, &pb.Advertise{Entries: []*pb.Entry{c.e}})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := reply.Results[0].Refused; (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: refused with %q, want %q", c.name, got, c.want)
		}
	}
	if _, err := newHolder(t, directory.Push, nil).Advertise(now, p.id, &pb.Advertise{Entries: make([]*pb.Entry, MaxEntries+1)}); err == nil {
		t.Error("too many records are taken")
	}
}

// otherBit is the first bit of a shard that p is not in.
func otherBit(p peer.ID) string {
	if holder.IDBits(p)[0] == '0' {
		return "1"
	}
	return "0"
}

// Where every record is held, a node that has withdrawn all its records has
// left.
func TestWithdraw(t *testing.T) {
	var left []peer.ID
	h := newHolder(t, directory.Push, func(c *Config) {
		c.Left = func(_ time.Time, p peer.ID) { left = append(left, p) }
	})
	p := newPublisher(t)
	_, _ = h.Advertise(now, p.id, &pb.Advertise{Entries: []*pb.Entry{p.entry(1)}})
	_, _ = h.Advertise(now, p.id, &pb.Advertise{Entries: []*pb.Entry{{Topic: string(home), Seq: 2}}})
	if h.cfg.Table.Get(now, home, p.id) != nil || !slices.Equal(left, []peer.ID{p.id}) {
		t.Errorf("left: %v", left)
	}
}

// A seeker with the same policy gets digests, any other one records; both get
// the number held and the reasons of rejections.
func TestQuery(t *testing.T) {
	h := newHolder(t, directory.Push, nil)
	roomy, full := newPublisher(t), newPublisher(t)
	busy := full.record(1)
	busy.State = capacity.Full
	_, _ = h.Advertise(now, roomy.id, &pb.Advertise{Entries: []*pb.Entry{roomy.entry(1)}})
	_, _ = h.Advertise(now, full.id, &pb.Advertise{Entries: []*pb.Entry{{Topic: string(home), Sealed: full.seal(busy)}}})
	query := func(change func(*pb.Query)) *pb.QueryReply {
		t.Helper()
		q := &pb.Query{Topic: string(holder.CapacityTopic()), Need: &cpb.Need{}, Policy: h.cfg.Policy().Policy().Version}
		change(q)
		reply, err := h.Query(now, "seeker", q)
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	r := query(func(*pb.Query) {})
	if len(r.Digests) != 1 || len(r.Sealed) != 0 || r.Held != 2 || len(r.Rejected) != 1 || string(r.Digests[0].Node) != string(roomy.id) {
		t.Errorf("with the same policy: %v", r)
	}
	offers, err := DigestsFromWire(now, "me", h.cfg.Policy().Policy(), r.Digests)
	if err != nil || len(offers) != 1 || offers[0].Record.Node != roomy.id || offers[0].Holder != "me" {
		t.Errorf("offers %v, %v", offers, err)
	}
	if r := query(func(q *pb.Query) { q.Policy++ }); len(r.Digests) != 0 || len(r.Sealed) != 1 {
		t.Errorf("with another policy: %v", r)
	}
	if r := query(func(q *pb.Query) { q.Explain = true }); len(r.Sealed) != 2 {
		t.Errorf("explained: %d records", len(r.Sealed))
	}
	if r := query(func(q *pb.Query) { q.Exclude = [][]byte{[]byte(roomy.id)} }); len(r.Digests) != 0 {
		t.Errorf("without the one that has room: %v", r)
	}
	for name, q := range map[string]*pb.Query{
		"no need":           {Topic: string(home)},
		"no topic":          {Topic: "x", Need: &cpb.Need{}},
		"too many excluded": {Topic: string(home), Need: &cpb.Need{}, Exclude: make([][]byte, MaxExclude+1)},
	} {
		if _, err := h.Query(now, "seeker", q); err == nil {
			t.Errorf("%s: answered", name)
		}
	}
}

// A datagram's records are confirmed if it asks for that, and a withdrawal by
// datagram is refused.
func TestDatagram(t *testing.T) {
	h, p := newHolder(t, directory.Push, nil), newPublisher(t)
	a, err := h.Datagram(now, p.id, &pb.Datagram{Id: 7, Entries: []*pb.Entry{p.entry(1)}})
	if err != nil || a.GetAnswers() != 7 || len(a.GetAnswer().GetResults()) != 1 {
		t.Errorf("to be confirmed: %v, %v", a, err)
	}
	if a, err = h.Datagram(now, p.id, &pb.Datagram{Entries: []*pb.Entry{p.entry(2), {Topic: string(home), Seq: 3}}}); err != nil || a != nil {
		t.Errorf("not to be confirmed: %v, %v", a, err)
	}
	if h.cfg.Table.Get(now, home, p.id) == nil {
		t.Error("a withdrawal came by datagram")
	}
	stream := string(holder.StreamTopic("a"))
	if a, err = h.Datagram(now, p.id, &pb.Datagram{Entries: []*pb.Entry{{Topic: stream, Update: []byte("x")}}}); !errors.Is(err, ErrNothingToUpdate) || !slices.Equal(a.GetLacking(), []string{stream}) {
		t.Errorf("an update of nothing: %v, %v", a, err)
	}
}

// A holder accepts a bounded number of records from a flooding peer.
func TestFlood(t *testing.T) {
	h, p := newHolder(t, directory.Push, nil), newPublisher(t)
	e, taken := p.entry(1), 0
	for range 2 * holder.RecordBurst / MaxEntries {
		reply, _ := h.Advertise(now, p.id, &pb.Advertise{Entries: slices.Repeat([]*pb.Entry{e}, MaxEntries)})
		for _, r := range reply.Results {
			if !strings.Contains(r.Refused, ErrFlood.Error()) {
				taken++
			}
		}
	}
	if taken != holder.RecordBurst {
		t.Errorf("%d taken, want %d", taken, holder.RecordBurst)
	}
	if h.takeCopies(now, p.id, home, []*pb.Copy{{Sealed: e.Sealed}}) != 0 {
		t.Error("one more is taken by a hand-over")
	}
}

// Handed-over records are verified, and keep their age.
func TestHandOver(t *testing.T) {
	p := newPublisher(t)
	h := newHolder(t, directory.Kademlia, func(c *Config) {
		c.Directory = inherits{c.Directory}
	})
	hand := func(sealed []byte, held time.Duration) uint32 {
		t.Helper()
		r, err := h.HandOver(now, "former", &pb.HandOver{Topic: string(home), Copies: []*pb.Copy{{Sealed: sealed, HeldMs: uint32(held.Milliseconds())}}})
		if err != nil {
			t.Fatal(err)
		}
		return r.Taken
	}
	sealed := p.seal(p.record(1))
	if hand([]byte("x"), 0) != 0 || hand(sealed, capacity.DefaultTTL) != 0 {
		t.Error("a bad record, or one that has run out, is taken")
	}
	if hand(sealed, 10*time.Second) != 1 {
		t.Error("a good one is not taken")
	}
	if got := h.cfg.Table.Get(now, home, p.id); got == nil || !got.Expires.Equal(now.Add(capacity.DefaultTTL-10*time.Second)) {
		t.Errorf("held: %+v", got)
	}
	over := h.HandOvers(now, func(peer.ID) bool { return true })
	if len(over["heir"]) != 1 || over["heir"][0].Copies[0].HeldMs != 10_000 {
		t.Errorf("passed on: %v", over)
	}
	if over := h.HandOvers(now, func(peer.ID) bool { return false }); len(over) != 0 {
		t.Errorf("passed on to a node that is not connected: %v", over)
	}
	if _, err := newHolder(t, directory.Push, nil).HandOver(now, "former", &pb.HandOver{Topic: string(home)}); !errors.Is(err, directory.ErrNotHolder) {
		t.Errorf("where a list says who holds: %v", err)
	}
}

// inherits accepts hand-overs from every node and has an heir.
type inherits struct{ directory.Directory }

func (inherits) Predecessor(time.Time, holder.Topic, peer.ID) error { return nil }
func (inherits) Heir(time.Time, holder.Topic) (peer.ID, bool)       { return "heir", true }

// An update is accepted only if its base is held, and only from its own node.
func TestHoldUpdates(t *testing.T) {
	h, from := newHolder(t, directory.Push, nil), newPublisher(t)
	base := from.record(1)
	sealed := from.seal(base)
	next := base
	next.Seq, next.Sessions.Used = 2, 3
	entry := &pb.Entry{Topic: string(home), Update: from.update(sealed, next)}

	if err := h.hold(now, from.id, entry); !errors.Is(err, ErrNothingToUpdate) {
		t.Errorf("with nothing held: %v", err)
	}
	if err := h.hold(now, from.id, &pb.Entry{Topic: string(home), Sealed: sealed}); err != nil {
		t.Fatal(err)
	}
	if err := h.hold(now, "me", entry); !errors.Is(err, ErrNothingToUpdate) {
		t.Errorf("from another: %v", err)
	}
	late := next
	late.Issued = base.Issued.Add(-capacity.MaxClockSkew - time.Minute)
	for name, c := range map[string]struct {
		b    []byte
		want error
	}{
		"of another record": {from.update(from.seal(next), next), capacity.ErrForged},
		"expired":           {from.update(sealed, late), capacity.ErrExpired},
		"nonsense":          {[]byte("x"), capacity.ErrMalformed},
	} {
		if err := h.hold(now, from.id, &pb.Entry{Topic: string(home), Update: c.b}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if got := h.cfg.Table.Get(now, home, from.id); got.Record.Seq != 1 || got.Record.Sessions.Used != 0 {
		t.Errorf("held: %+v", got.Record)
	}
	soon := now.Add(5 * time.Second)
	if err := h.hold(soon, from.id, entry); err != nil {
		t.Fatal(err)
	}
	got := h.cfg.Table.Get(soon, home, from.id)
	if got == nil || got.Record.Seq != 2 || got.Record.Sessions.Used != 3 || !got.Expires.Equal(soon.Add(capacity.DefaultTTL)) {
		t.Fatalf("held: %+v", got)
	}
	// Readers get the signed record, as updated.
	if r, err := signed.OpenRecord(got.Sealed, soon); err != nil || r.Seq != 2 || r.Sessions.Used != 3 {
		t.Errorf("opened: %+v, %v", r, err)
	}
	if err := h.hold(soon, from.id, &pb.Entry{Topic: string(home), Sealed: sealed}); err == nil {
		t.Error("the base came back in the place of what updates it")
	}
}

// Whatever is handed over, a record that is kept is signed by the node it
// names, belongs in the topic, and does not outlive the original.
func FuzzHandOver(f *testing.F) {
	h := newHolder(f, directory.Push, nil)
	p := newPublisher(f)
	r := p.record(1)
	r.TTL = capacity.MaxTTL
	other := r
	other.Region, other.Seq = "eu", 2
	for _, m := range []*pb.HandOver{
		{},
		{Topic: string(home), Copies: []*pb.Copy{{Sealed: p.seal(r), HeldMs: 10}}},
		{Topic: string(home), Copies: []*pb.Copy{{Sealed: p.seal(other)}, {Sealed: []byte("x"), HeldMs: 1 << 31}}},
		{Topic: "stream/a", Copies: []*pb.Copy{{}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var m pb.HandOver
		if proto.Unmarshal(b, &m) != nil || holder.Topic(m.Topic).Check() != nil {
			return
		}
		*h.cfg.Rates = holder.RateLimit{}
		if taken := h.takeCopies(now, "from", holder.Topic(m.Topic), m.Copies); int(taken) > len(m.Copies) {
			t.Fatalf("%d taken of %d", taken, len(m.Copies))
		}
		for topic, records := range h.cfg.Table.All(now) {
			for _, c := range records {
				if got, err := signed.OpenRecordAnyAge(c.Sealed); err != nil || got.Node != c.Node() || topic.Fits(&got) != nil || c.Expires.Sub(c.Received) > got.TTL {
					t.Fatalf("%s holds %+v: %v", topic, got, err)
				}
			}
		}
	})
}
