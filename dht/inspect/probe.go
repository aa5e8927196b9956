package inspect

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/peerstatus"
	"weir/dht/vivaldi"
)

const (
	// MaxFetch is how many records one answer to FETCH has at most.
	MaxFetch = 64
	// probeEvery is how often one connected peer is asked for its status, and
	// probeNew how soon the next one that never was.
	probeEvery = 5 * time.Second
	probeNew   = 500 * time.Millisecond
)

// ProberConfig is a [Prober]'s view of its node; all of it is needed. Functions
// are called from several goroutines.
type ProberConfig struct {
	Self peer.ID
	// Fetch asks p for its status, and for at most max of its own records, and
	// returns the round trip, 0 if unknown.
	Fetch func(ctx context.Context, p peer.ID, max int) (*pb.FetchReply, time.Duration, error)
	// Locate prepares a dial to p.
	Locate func(ctx context.Context, p peer.ID)
	Coords vivaldi.Client
	// Wall is the time by the clock to compare with other nodes' times.
	Wall func(now time.Time) time.Time

	// Name and Sealed return this node's own name, and at most max of its
	// sealed records.
	Name   func() string
	Sealed func(max int) [][]byte
	Table  *holder.Table // this node's records

	Members func() []peer.AddrInfo // connected, and of this network
	Known   func() []peer.ID       // connected, or in the routing table
	Holders func() []peer.ID       // of the capacity topic
	Addrs   func(p peer.ID) []multiaddr.Multiaddr
	Conns   func(p peer.ID) []network.Conn
	Member  func(p peer.ID) bool
	RTT     func(p peer.ID) time.Duration // 0: never measured

	Log *slog.Logger
}

// A Prober asks other nodes for their status. It is safe for concurrent use.
type Prober struct {
	cfg    ProberConfig
	status peerstatus.Log
}

// NewProber returns a Prober that has asked no peer yet.
func NewProber(cfg ProberConfig) *Prober { return &Prober{cfg: cfg} }

// Run asks connected peers in turn, to measure round trips and clocks, so that
// the node's coordinate takes in peers other than its holders, until ctx is
// done, and returns ctx.Err(). It starts no goroutine.
func (b *Prober) Run(ctx context.Context) error {
	tick := time.NewTicker(probeNew)
	defer tick.Stop()
	var last time.Time
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		var members []peer.ID
		for _, ai := range b.cfg.Members() {
			members = append(members, ai.ID)
		}
		p, fresh := b.status.Next(members)
		if p == "" || !fresh && time.Since(last) < probeEvery {
			continue
		}
		last = time.Now()
		b.status.Asked(last, p)
		if err := b.Ask(ctx, p); err != nil && ctx.Err() == nil {
			b.cfg.Log.Debug("round trip not measured", "peer", p, "err", err)
		}
	}
}

// Ask asks p for its status, which [Prober.Of] returns from then on.
func (b *Prober) Ask(ctx context.Context, p peer.ID) error {
	_, err := b.fetch(ctx, p, 0)
	return err
}

// Fetch returns id's own newest sealed records, its capacity record first, as
// sent by id. They are not verified.
func (b *Prober) Fetch(ctx context.Context, id peer.ID) ([][]byte, error) {
	if id == b.cfg.Self {
		return b.cfg.Sealed(MaxFetch), nil
	}
	b.cfg.Locate(ctx, id)
	return b.fetch(ctx, id, MaxFetch)
}

// fetch asks for at most max of id's own records.
func (b *Prober) fetch(ctx context.Context, id peer.ID, max int) ([][]byte, error) {
	reply, rtt, err := b.cfg.Fetch(ctx, id, max)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	b.cfg.Coords.Observe(id, vivaldi.FromWire(reply.Coordinate), rtt)
	b.status.Take(now, b.cfg.Wall(now), id, reply, rtt)
	return reply.Sealed[:min(len(reply.Sealed), max)], nil
}

// Of returns p's last status.
func (b *Prober) Of(p peer.ID) peerstatus.Status { return b.status.Of(p) }

// Since returns the peers that have sent a status since then, by this machine's
// clock.
func (b *Prober) Since(then time.Time) []peer.ID { return b.status.Since(then) }

// PeerInfo is a node's knowledge of another.
type PeerInfo struct {
	ID            peer.ID               `json:"peer_id"`
	Name          string                `json:"name,omitempty"` // its own claim
	Addrs         []multiaddr.Multiaddr `json:"addrs"`
	Connected     bool                  `json:"connected"`
	Member        bool                  `json:"member"`            // serves this network's protocol, as far as known
	RTT           float64               `json:"rtt_ms"`            // measured; 0: never
	CoordinateRTT float64               `json:"coordinate_rtt_ms"` // predicted; 0: unknown
	// CoordinateError is how far the peer trusts its coordinate: Vivaldi's
	// estimate of its relative error, without unit; 0: unknown.
	CoordinateError float64   `json:"coordinate_error"`
	Direction       string    `json:"direction,omitempty"` // "inbound", "outbound": the side that dialled
	Transport       string    `json:"transport,omitempty"` // "quic", "tcp"
	Holder          bool      `json:"holder"`              // of the capacity topic
	Since           time.Time `json:"since,omitzero"`      // connected since

	// The peer's own report, at Told; zero: none yet.
	Told        time.Time      `json:"told,omitzero"`
	ClockOffset float64        `json:"clock_offset_ms"` // how far its clock is ahead of this node's
	HoldsTopics int            `json:"holds_topics"`    // topics of which it holds records
	Holds       int            `json:"holds_records"`   // records it holds, its own included
	Discovery   directory.Mode `json:"discovery,omitempty"`
	Release     string         `json:"release,omitempty"`
}

// Peers lists the peers that are connected or in the routing table.
func (b *Prober) Peers() []PeerInfo {
	holders := b.cfg.Holders()
	ids := b.cfg.Known()
	slices.Sort(ids)
	ids = slices.Compact(ids)
	list := make([]PeerInfo, 0, len(ids))
	for _, p := range ids {
		info := PeerInfo{
			ID:     p,
			Name:   b.Name(p),
			Addrs:  append([]multiaddr.Multiaddr{}, b.cfg.Addrs(p)...),
			Member: b.cfg.Member(p),
			RTT:    capacity.Milliseconds(b.cfg.RTT(p)),
			Holder: slices.Contains(holders, p),
		}
		slices.SortFunc(info.Addrs, multiaddr.Multiaddr.Compare)
		said := b.status.Of(p)
		at := said.Coordinate
		if h := b.cfg.Table.Get(time.Now(), holder.CapacityTopic(), p); at == nil && h != nil {
			at = h.Record.Coordinate
		}
		if at != nil {
			info.CoordinateRTT, info.CoordinateError = capacity.Milliseconds(b.cfg.Coords.Predict(at)), at.Error
		}
		info.Told, info.ClockOffset = said.At, capacity.Milliseconds(said.Clock)
		info.HoldsTopics, info.Holds = said.Topics, said.Records
		info.Discovery, info.Release = said.Mode, said.Release
		if conns := b.cfg.Conns(p); len(conns) > 0 {
			c := conns[0]
			info.Connected = true
			info.Since = c.Stat().Opened
			info.Direction = "inbound"
			if c.Stat().Direction == network.DirOutbound {
				info.Direction = "outbound"
			}
			info.Transport = "tcp"
			if _, err := c.RemoteMultiaddr().ValueForProtocol(multiaddr.P_QUIC_V1); err == nil {
				info.Transport = "quic"
			}
		}
		list = append(list, info)
	}
	return list
}

// Name is the name that id's operator gave it, as claimed by the node itself;
// several nodes may claim one. "" if it is not known.
func (b *Prober) Name(id peer.ID) string {
	if id == b.cfg.Self {
		return b.cfg.Name()
	}
	if name := b.status.Of(id).Name; name != "" {
		return name
	}
	if h := b.cfg.Table.Get(time.Now(), holder.CapacityTopic(), id); h != nil {
		return h.Record.Name
	}
	return ""
}

// Names are the names of this node, of those asked lately, and of those whose
// records it holds.
func (b *Prober) Names() map[peer.ID]string {
	names := b.status.Names()
	for _, records := range b.cfg.Table.All(time.Now()) {
		for _, h := range records {
			if name := h.Record.Name; name != "" && names[h.Node()] == "" {
				names[h.Node()] = name
			}
		}
	}
	if name := b.cfg.Name(); name != "" {
		names[b.cfg.Self] = name
	}
	return names
}
