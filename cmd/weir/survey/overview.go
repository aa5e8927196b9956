package survey

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/cmd/weir/api"
	"weir/dht"
)

const (
	// Timeout bounds the reading of one topic for inspection.
	Timeout = 2 * time.Second
	// Pause is the least time between two reads of the whole network,
	// however many consoles are open.
	Pause = time.Second
	// overviewIdle is how long reading goes on after the last request of a
	// console.
	overviewIdle = 5 * time.Second
	// fetchesAtOnce bounds the nodes that are asked for their streams
	// concurrently.
	fetchesAtOnce = 16
	// decisionsKept is how many placements are kept for explanation.
	decisionsKept = 64
)

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

// An Overview reads the whole network while a console is open, once for all
// consoles.
type Overview struct {
	self    peer.ID
	network string
	holders snapshotter
	nodes   fetcher
	log     *slog.Logger

	wake chan struct{}

	mu        sync.Mutex
	asked     time.Time
	state     api.NetworkState
	changed   chan struct{} // closed when state is replaced
	decisions []dht.Decision
}

// NewOverview reads network as self sees it: records from holders, and streams
// from the nodes themselves.
func NewOverview(self peer.ID, network string, holders snapshotter, nodes fetcher, log *slog.Logger) *Overview {
	return &Overview{self: self, network: network, holders: holders, nodes: nodes, log: log, wake: make(chan struct{}, 1), changed: make(chan struct{})}
}

// Run reads the network repeatedly while consoles request it, until ctx is done.
func (o *Overview) Run(ctx context.Context) error {
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
			state := o.read(ctx)
			state.Gone = memory.gone(state.Time, state.Nodes, len(state.Hearing.Silent) > 0 || !state.Hearing.Enough())
			o.mu.Lock()
			o.state = state
			close(o.changed)
			o.changed = make(chan struct{})
			o.mu.Unlock()
			pause.Reset(Pause)
			select {
			case <-pause.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func (o *Overview) wanted() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return time.Since(o.asked) < overviewIdle
}

// Latest returns a state at most overviewPause and snapshotTimeout old, and a
// channel that is closed when there is a newer one. It waits for the first
// state.
func (o *Overview) Latest(ctx context.Context) (api.NetworkState, <-chan struct{}, error) {
	for {
		o.mu.Lock()
		o.asked = time.Now()
		state, changed := o.state, o.changed
		o.mu.Unlock()
		select {
		case o.wake <- struct{}{}:
		default:
		}
		if time.Since(state.Time) < Pause+Timeout {
			return state, changed, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return api.NetworkState{}, nil, fmt.Errorf("read the network: %w", ctx.Err())
		}
	}
}

// Decided keeps a decision for /api/v1/decisions.
func (o *Overview) Decided(d dht.Decision) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.decisions) == decisionsKept {
		o.decisions = o.decisions[1:]
	}
	o.decisions = append(o.decisions, d)
}

func (o *Overview) LastDecisions() []dht.Decision {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append([]dht.Decision{}, o.decisions...)
}

// read reads the network once. What is not read is missing in the state.
func (o *Overview) read(ctx context.Context) api.NetworkState {
	records, err := Read(ctx, o.holders, dht.CapacityTopic())
	if err != nil {
		o.log.Debug("topic not read", "topic", dht.CapacityTopic(), "err", err)
	}
	nodes := records.Records
	for i := range nodes {
		nodes[i].Sealed, nodes[i].Copies = nil, nil // the console does not use these
	}
	all := Streams(ctx, o.nodes, records)
	return api.NetworkState{
		Self: o.self, Network: o.network, Nodes: nodes,
		Streams: all.Streams, Hearing: all.Hearing, Silent: all.Silent, Time: time.Now(),
	}
}
