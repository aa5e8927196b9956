package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weir/sfu/client"
)

// Hop is the one-way delay that one cascade link adds: the same packet at a
// viewer of the origin and at one behind the link, both on one clock.
type Hop struct {
	Added   Spread  `json:"added_ms"`
	Missing int     `json:"missing"` // packets that the far viewer did not get
	RTT     float64 `json:"link_rtt_ms"`
}

// hop measures a stream's packets from a to b.
func (t *trial) hop(ctx context.Context, a, b node) (*Hop, error) {
	const stream = "bench/hop"
	stop, _, err := t.publish(ctx, a.whip(stream))
	if err != nil {
		return nil, err
	}
	defer stop()
	if err := b.finds(ctx, stream, a); err != nil {
		return nil, err
	}
	p := newPassing()
	near, err := view(ctx, a.whep(stream), func(c *client.ViewConfig) { c.OnRTP = p.atNear })
	if err != nil {
		return nil, err
	}
	defer near.Close()
	far, err := view(ctx, b.whep(stream), func(c *client.ViewConfig) { c.OnRTP = p.atFar })
	if err != nil {
		return nil, err
	}
	defer far.Close()

	select {
	case <-time.After(t.cfg.Hop):
	case <-near.Done():
		return nil, errors.New("the viewer at the origin lost its connection")
	case <-far.Done():
		return nil, errors.New("the viewer behind the link lost its connection")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	link, err := b.linkTo(ctx, a)
	if link == nil {
		return nil, errors.Join(fmt.Errorf("%s has no link to %s", b.Name, a.Name), err)
	}
	differences, missing := p.added()
	if len(differences) == 0 {
		return nil, errors.New("no packet was seen at both viewers: does the publisher send abs-capture-time?")
	}
	return &Hop{Added: spreadOf(differences), Missing: missing, RTT: link.RTT}, nil
}
