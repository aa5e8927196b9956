package survey

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

// Inspect checks one sealed record for people: unlike [signed.OpenRecord]
// it goes on after the first fault.
func Inspect(sealed []byte, now time.Time) api.Record {
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

// Read reads all records of topic from its holders: the newest of each
// node, and the holders of a copy.
func Read(ctx context.Context, from snapshotter, topic dht.Topic) (api.Records, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	changes, heard, err := from.Read(ctx, topic)
	all := []api.Record{}
	byNode := map[peer.ID][]inspect.Change{}
	for _, c := range changes {
		if c.Err == nil {
			byNode[c.Node] = append(byNode[c.Node], c)
			continue
		}
		e := Inspect(c.Sealed, time.Now())
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
	e := Inspect(newest.Sealed, now)
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

// fetcher asks a node for its own records.
type fetcher interface {
	Fetch(ctx context.Context, id peer.ID) ([][]byte, error)
}

// Streams asks every node in records that carries any streams for them.
func Streams(ctx context.Context, f fetcher, records api.Records) api.Streams {
	var (
		mu   sync.Mutex
		rows []capacity.Record
		work errgroup.Group
	)
	list := api.Streams{Hearing: records.Hearing}
	ctx, cancel := context.WithTimeout(ctx, Timeout)
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
			Node: r.Node, Name: r.Name, URL: r.URL, Region: r.Region, State: c.State, Origin: c.Origin, Depth: c.Depth, Parent: c.Parent,
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

// RetryAfter is the Retry-After of an answer that cannot be given yet.
const RetryAfter = time.Second

func Topic(stream string) dht.Topic {
	if stream == "" {
		return dht.CapacityTopic()
	}
	return dht.StreamTopic(stream)
}

// Of asks id itself for its records, and their holders if id does not
// answer.
func Of(ctx context.Context, d fetcher, holders snapshotter, id peer.ID) ([]api.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*Timeout)
	defer cancel()
	own, err := d.Fetch(ctx, id)
	if err == nil {
		all := make([]api.Record, 0, len(own))
		for _, sealed := range own {
			e := Inspect(sealed, time.Now())
			e.HeldBy, e.HeldFor = []peer.ID{id}, []float64{0}
			all = append(all, e)
		}
		return all, nil
	}
	held, snapErr := Read(ctx, holders, dht.CapacityTopic())
	for _, e := range held.Records {
		if e.Node == id {
			return []api.Record{e}, nil
		}
	}
	if silent := held.Hearing.String(); snapErr != nil || silent != "" {
		return nil, problem.New(problem.NotKnown, fmt.Sprintf("%s does not answer (%v), and whether a holder has a record of it is not known: %s", id, err, cmp.Or(silent, fmt.Sprint(snapErr)))).Retry(RetryAfter)
	}
	return nil, problem.New(problem.NotFound, fmt.Sprintf("%s does not answer (%v), and no holder has a record of it", id, err))
}

func Change(c inspect.Change) api.RecordChange {
	switch {
	case c.Synced:
		return api.RecordChange{Synced: true, Hearing: &c.Hearing}
	case c.Gone:
		return api.RecordChange{Gone: c.Node}
	}
	e := Inspect(c.Sealed, time.Now())
	addHolder(&e, c)
	return api.RecordChange{Entry: &e}
}
