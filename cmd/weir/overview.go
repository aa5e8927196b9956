package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/record"
	"golang.org/x/sync/errgroup"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/cmd/weir/api"
	"weir/dht"
	"weir/dht/inspect"
	"weir/sfu/problem"
)

const (
	// snapshotTimeout bounds the reading of one topic for inspection.
	snapshotTimeout = 2 * time.Second
	// overviewPause is the least time between two reads of the whole network,
	// however many consoles are open.
	overviewPause = time.Second
	// overviewIdle is how long reading goes on after the last request of a
	// console.
	overviewIdle = 5 * time.Second
	// fetchesAtOnce bounds the nodes that are asked for their streams
	// concurrently.
	fetchesAtOnce = 16
	// decisionsKept is how many placements are kept for explanation.
	decisionsKept = 64
)

// inspectRecord checks one sealed record for people: unlike [signed.OpenRecord]
// it goes on after the first fault.
func inspectRecord(sealed []byte, now time.Time) api.Record {
	e := api.Record{Bytes: len(sealed), Sealed: sealed}
	if len(sealed) <= signed.MaxRecordSize {
		if env, err := record.UnmarshalEnvelope(sealed); err == nil && env.PublicKey != nil {
			if id, err := peer.IDFromPublicKey(env.PublicKey); err == nil {
				e.Signer = id
			}
		}
	}
	r, err := signed.OpenRecordAnyAge(sealed)
	if err == nil {
		e.Record, e.Node = &r, r.Node
		e.Age = float64(now.Sub(r.Issued).Microseconds()) / 1000
		e.TTLLeft = float64(r.Expires().Sub(now).Microseconds()) / 1000
		err = r.CheckAge(now)
	}
	if err != nil {
		e.Error = err.Error()
	}
	e.Valid = err == nil
	return e
}

// addHolder notes the copy that c reports.
func addHolder(e *api.Record, c inspect.Change) {
	e.HeldBy = append(e.HeldBy, c.Holder)
	e.HeldFor = append(e.HeldFor, float64(c.HeldFor.Microseconds())/1000)
}

// snapshotter is a source of records: a node, or a client of the network.
type snapshotter interface {
	Read(ctx context.Context, topic dht.Topic) ([]inspect.Change, dht.Hearing, error)
}

// snapshot reads all records of topic from its holders: the newest of each
// node, and the holders of a copy.
func snapshot(ctx context.Context, from snapshotter, topic dht.Topic) (api.Records, error) {
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	changes, heard, err := from.Read(ctx, topic)
	all := []api.Record{}
	byNode := map[peer.ID][]inspect.Change{}
	for _, c := range changes {
		if c.Err == nil {
			byNode[c.Node] = append(byNode[c.Node], c)
			continue
		}
		e := inspectRecord(c.Sealed, time.Now())
		addHolder(&e, c)
		all = append(all, e)
	}
	for _, copies := range byNode {
		all = append(all, gather(copies, time.Now()))
	}
	slices.SortFunc(all, func(a, b api.Record) int {
		ra, rb := regionOf(a), regionOf(b)
		return cmp.Or(cmp.Compare(ra, rb), cmp.Compare(a.Node, b.Node))
	})
	if errors.Is(err, context.DeadlineExceeded) && len(all) > 0 {
		err = nil
	}
	return api.Records{Records: all, Hearing: heard}, err
}

// gather makes one entry of the copies of one node's records: the newest, and
// the holders of each. A node may publish in several topics, each with its own
// sequence numbers.
func gather(copies []inspect.Change, now time.Time) api.Record {
	newest := copies[0]
	newestIn := map[dht.Topic]uint64{}
	for _, c := range copies {
		newestIn[c.Topic] = max(newestIn[c.Topic], c.Record.Seq)
		if c.Record.Seq > newest.Record.Seq {
			newest = c
		}
	}
	// A holder may report an older record first, and then the newer one.
	type place struct {
		holder peer.ID
		topic  dht.Topic
	}
	latest := map[place]inspect.Change{}
	for _, c := range copies {
		at := place{c.Holder, c.Topic}
		if had, ok := latest[at]; !ok || c.Record.Seq > had.Record.Seq {
			latest[at] = c
		}
	}
	e := inspectRecord(newest.Sealed, now)
	for _, c := range latest {
		e.Copies = append(e.Copies, api.RecordCopy{
			Holder: c.Holder, Topic: c.Topic, HeldFor: float64(c.HeldFor.Microseconds()) / 1000,
			Seq: c.Record.Seq, Old: c.Record.Seq < newestIn[c.Topic],
		})
	}
	slices.SortFunc(e.Copies, func(a, b api.RecordCopy) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.HeldFor, b.HeldFor), cmp.Compare(a.Holder, b.Holder))
	})
	for _, k := range e.Copies {
		if !k.Old && !slices.Contains(e.HeldBy, k.Holder) {
			e.HeldBy, e.HeldFor = append(e.HeldBy, k.Holder), append(e.HeldFor, k.HeldFor)
		}
	}
	return e
}

func regionOf(e api.Record) string {
	if e.Record == nil {
		return ""
	}
	return e.Record.Region
}

// snapshot reads a topic; on failure the records may be incomplete.
func (n *node) snapshot(ctx context.Context, topic dht.Topic) api.Records {
	all, err := snapshot(ctx, n.dht.Reader, topic)
	if err != nil {
		n.log.Debug("topic not read", "topic", topic, "err", err)
	}
	return all
}

// fetcher asks a node for its own records.
type fetcher interface {
	Fetch(ctx context.Context, id peer.ID) ([][]byte, error)
}

// streams asks every node in records that carries any streams for them.
func streams(ctx context.Context, f fetcher, records api.Records) api.Streams {
	var (
		mu   sync.Mutex
		rows []capacity.Record
		work errgroup.Group
	)
	list := api.Streams{Hearing: records.Hearing}
	ctx, cancel := context.WithTimeout(ctx, snapshotTimeout)
	defer cancel()
	work.SetLimit(fetchesAtOnce)
	for _, e := range records.Records {
		if !e.Valid || e.Record.Streams.Used == 0 {
			continue
		}
		work.Go(func() error {
			own, err := f.Fetch(ctx, e.Node)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				list.Silent = append(list.Silent, dht.Silence{Node: e.Node, Err: problem.Cause(err)})
				return nil // the others count
			}
			for _, sealed := range own {
				if r, err := signed.OpenRecord(sealed, time.Now()); err == nil && r.Node == e.Node && r.Carries != nil {
					rows = append(rows, r)
				}
			}
			return nil
		})
	}
	_ = work.Wait()
	slices.SortFunc(list.Silent, func(a, b dht.Silence) int { return cmp.Compare(a.Node, b.Node) })
	list.Streams = byStream(rows)
	return list
}

// byStream gathers carriers' records into streams.
func byStream(rows []capacity.Record) []api.Stream {
	entries := map[string]*api.Stream{}
	for _, r := range rows {
		c := r.Carries
		e := entries[c.Stream]
		if e == nil {
			e = &api.Stream{Stream: c.Stream, Tracks: c.Tracks}
			entries[c.Stream] = e
		}
		e.Viewers += c.Viewers
		e.Carriers = append(e.Carriers, api.Carrier{
			Node: r.Node, Name: r.Name, URL: r.URL, Region: r.Region, Origin: c.Origin, Depth: c.Depth, Parent: c.Parent,
			ParentRTT: float64(c.ParentRTT.Microseconds()) / 1000, Viewers: c.Viewers, Children: c.Children, Fanout: c.Fanout, Path: c.Path,
		})
	}
	all := make([]api.Stream, 0, len(entries))
	for _, e := range entries {
		slices.SortFunc(e.Carriers, func(a, b api.Carrier) int {
			return cmp.Or(cmp.Compare(a.Depth, b.Depth), cmp.Compare(a.Node, b.Node))
		})
		all = append(all, *e)
	}
	slices.SortFunc(all, func(a, b api.Stream) int { return cmp.Compare(a.Stream, b.Stream) })
	return all
}

// goneShown is how long the console shows a node after its record is gone.
const goneShown = 2 * time.Minute

// A nodeMemory remembers nodes whose records are gone. It belongs to one
// goroutine.
type nodeMemory map[peer.ID]*remembered

type remembered struct {
	entry api.GoneNode
	seen  time.Time
}

// gone takes the current records and returns the nodes that have none any more,
// the latest first. unsure says that records may be missing because holders did
// not answer.
func (m nodeMemory) gone(now time.Time, records []api.Record, unsure bool) []api.GoneNode {
	for _, e := range records {
		if e.Record != nil {
			m[e.Node] = &remembered{api.GoneNode{Node: e.Node, Name: e.Record.Name, Region: e.Record.Region}, now}
		}
	}
	missing := []api.GoneNode{}
	for id, r := range m {
		switch since := now.Sub(r.seen); {
		case since > goneShown:
			delete(m, id)
		case since > 0:
			r.entry.For, r.entry.Unsure = float64(since.Milliseconds()), unsure
			missing = append(missing, r.entry)
		}
	}
	slices.SortFunc(missing, func(a, b api.GoneNode) int {
		return cmp.Or(cmp.Compare(a.For, b.For), cmp.Compare(a.Node, b.Node))
	})
	return missing
}

// An overview reads the whole network while a console is open, once for all
// consoles.
type overview struct {
	node *node
	wake chan struct{}

	mu        sync.Mutex
	asked     time.Time
	state     api.NetworkState
	changed   chan struct{} // closed when state is replaced
	decisions []dht.Decision
}

func newOverview(n *node) *overview {
	return &overview{node: n, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// run reads the network repeatedly while consoles request it, until ctx is done.
func (o *overview) run(ctx context.Context) error {
	pause := time.NewTimer(0)
	defer pause.Stop()
	memory := nodeMemory{}
	for {
		select {
		case <-o.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		for o.wanted() {
			state := o.node.networkState(ctx)
			state.Gone = memory.gone(state.Time, state.Nodes, len(state.Hearing.Silent) > 0 || !state.Hearing.Enough())
			o.mu.Lock()
			o.state = state
			close(o.changed)
			o.changed = make(chan struct{})
			o.mu.Unlock()
			pause.Reset(overviewPause)
			select {
			case <-pause.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func (o *overview) wanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Since(o.asked) < overviewIdle
}

// latest returns a state at most overviewPause and snapshotTimeout old, and a
// channel that is closed when there is a newer one. It waits for the first
// state.
func (o *overview) latest(ctx context.Context) (api.NetworkState, <-chan struct{}, error) {
	for {
		o.mu.Lock()
		o.asked = time.Now()
		state, changed := o.state, o.changed
		o.mu.Unlock()
		select {
		case o.wake <- struct{}{}:
		default:
		}
		if time.Since(state.Time) < overviewPause+snapshotTimeout {
			return state, changed, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return api.NetworkState{}, nil, fmt.Errorf("read the network: %w", ctx.Err())
		}
	}
}

// decided keeps a decision for /api/v1/decisions.
func (o *overview) decided(d dht.Decision) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.decisions) == decisionsKept {
		o.decisions = o.decisions[1:]
	}
	o.decisions = append(o.decisions, d)
}

func (o *overview) lastDecisions() []dht.Decision {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]dht.Decision{}, o.decisions...)
}

func (n *node) networkState(ctx context.Context) api.NetworkState {
	records := n.snapshot(ctx, dht.CapacityTopic())
	nodes := records.Records
	for i := range nodes {
		nodes[i].Sealed, nodes[i].Copies = nil, nil // the console does not use these
	}
	all := streams(ctx, n.dht.Prober, records)
	return api.NetworkState{
		Self: n.dht.ID(), Network: n.cfg.network, Nodes: nodes,
		Streams: all.Streams, Hearing: all.Hearing, Silent: all.Silent, Time: time.Now(),
	}
}
