package bench

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"weir/capacity"
)

// sessionsAtOnce is how many viewers come and go concurrently.
const sessionsAtOnce = 8

// Sessions is the test whether many sessions leave anything behind.
type Sessions struct {
	Opened  int     `json:"opened"` // and closed, half at the origin and half behind a link
	Elapsed float64 `json:"elapsed_ms"`
	First   Spread  `json:"first_frame_ms"` // of concurrent viewers, so slower than one by one
	Origin  Remains `json:"origin"`
	Relay   Remains `json:"relay"`
}

// Remains compares a node before and after: Clean means that no count has
// grown, goroutines included.
type Remains struct {
	Before Count `json:"before"`
	After  Count `json:"after"`
	Clean  bool  `json:"clean"`
}

// Count is the resources of one node at a time.
type Count struct {
	Goroutines int   `json:"goroutines"`
	Sessions   int   `json:"sessions"`
	Streams    int   `json:"streams"`
	Links      int   `json:"links"`
	Leases     int   `json:"leases"`
	Heap       int64 `json:"heap_bytes"` // live, after a collection
}

// within reports whether c is at most limit, without the heap: maps keep their
// size.
func (c Count) within(limit Count) bool {
	return c.Goroutines <= limit.Goroutines && c.Sessions <= limit.Sessions && c.Streams <= limit.Streams &&
		c.Links <= limit.Links && c.Leases <= limit.Leases
}

func (n node) count(ctx context.Context) (Count, error) {
	s, err := n.status(ctx)
	return Count{
		Goroutines: s.Goroutines, Sessions: s.Publishers + s.Viewers,
		Streams: s.Streams, Links: s.Links, Leases: s.Leases,
	}, err
}

// rest waits until the node has no link and no lease, and a number of
// goroutines that settled accepts, if that happens; then it counts.
func (n node) rest(ctx context.Context, settled func(Count) bool) (c Count, err error) {
	_ = until(ctx, n.Name+" is at rest", func() (bool, error) {
		c, err = n.count(ctx)
		return err == nil && c.Links == 0 && c.Leases == 0 && settled(c), err
	})
	if err != nil || ctx.Err() != nil {
		return c, fmt.Errorf("count what %s has: %w", n.Name, firstError(err, ctx.Err()))
	}
	c.Heap, err = n.heap(ctx)
	return c, err
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// sessions opens and closes cfg.Sessions viewers of a's stream, alternately at
// a and at b. Both nodes are counted without publisher, before and after: the
// first time after a few sessions, so that one-time allocations exist.
func (t *trial) sessions(ctx context.Context, a, b node) (*Sessions, error) {
	if _, err := t.visits(ctx, a, b, 2*sessionsAtOnce); err != nil {
		return nil, err
	}
	result := &Sessions{Opened: t.cfg.Sessions}
	lowest := func(n node) (Count, error) {
		// Goroutines of discovery come and go: the baseline is the minimum of
		// several counts.
		least, err := n.rest(ctx, func(Count) bool { return true })
		for range 10 {
			if err != nil {
				break
			}
			var c Count
			if c, err = n.count(ctx); c.Goroutines < least.Goroutines {
				least.Goroutines = c.Goroutines
			}
		}
		return least, err
	}
	var err error
	if result.Origin.Before, err = lowest(a); err != nil {
		return nil, err
	}
	if result.Relay.Before, err = lowest(b); err != nil {
		return nil, err
	}
	began := time.Now()
	waits, err := t.visits(ctx, a, b, t.cfg.Sessions)
	if err != nil {
		return nil, err
	}
	result.Elapsed = capacity.Milliseconds(time.Since(began))
	result.First = spreadOf(waits)
	for _, side := range []struct {
		n node
		r *Remains
	}{{a, &result.Origin}, {b, &result.Relay}} {
		settled := func(c Count) bool { return c.within(side.r.Before) }
		if side.r.After, err = side.n.rest(ctx, settled); err != nil {
			return nil, err
		}
		side.r.Clean = side.r.After.within(side.r.Before)
	}
	return result, nil
}

// visits has n viewers come and go, and returns each one's time to its first
// frame.
func (t *trial) visits(ctx context.Context, a, b node, n int) ([]float64, error) {
	const stream = "bench/many"
	stop, _, err := t.publish(ctx, a.whip(stream))
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := b.finds(ctx, stream, a); err != nil {
		return nil, err
	}
	waits := make([]float64, n)
	work, ctx := errgroup.WithContext(ctx)
	work.SetLimit(sessionsAtOnce)
	for i := range n {
		at := a
		if i%2 == 1 {
			at = b
		}
		work.Go(func() error {
			s, err := viewOnce(ctx, at.whep(stream))
			waits[i] = capacity.Milliseconds(s.FirstFrame)
			if err != nil {
				err = fmt.Errorf("session %d of %d: %w", i+1, n, err)
			}
			return err
		})
	}
	return waits, work.Wait()
}
