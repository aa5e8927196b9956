package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weir/dht"
)

// Selection is the cost for a full node to find a helper for one client and to
// reserve there, as measured by the node. All frames on discovery's streams
// count, both ways, with their protocol negotiations.
type Selection struct {
	Client   string `json:"client"`   // its role: publisher or viewer
	Messages Spread `json:"messages"` // frames
	Bytes    Spread `json:"bytes"`
	Time     Spread `json:"time_ms"` // finding, ranking and reserving
}

// placements are the decisions of one redirect.
type placements []dht.Decision

func (p placements) sum(number func(dht.Decision) float64) float64 {
	total := 0.0
	for _, d := range p {
		total += number(d)
	}
	return total
}

func selection(name string, of []placements) Selection {
	by := func(number func(dht.Decision) float64) Spread {
		return spreadBy(of, func(p placements) float64 { return p.sum(number) })
	}
	return Selection{
		Client:   name,
		Messages: by(func(d dht.Decision) float64 { return float64(d.Messages) }),
		Bytes:    by(func(d dht.Decision) float64 { return float64(d.Bytes) }),
		Time:     by(func(d dht.Decision) float64 { return d.TotalMillis }),
	}
}

// ages lists the age of each chosen node's record.
func ages(of []placements) []float64 {
	var all []float64
	for _, p := range of {
		for _, d := range p {
			for _, v := range d.Verdicts {
				if d.Chosen != "" && v.Node == d.Chosen {
					all = append(all, v.Age)
				}
			}
		}
	}
	return all
}

// selections fills the last node and sends it more clients, which it redirects.
func (t *trial) selections(ctx context.Context) ([]Selection, Spread, error) {
	const stream = "bench/full"
	full := t.nodes[len(t.nodes)-1]
	stop, _, err := t.publish(ctx, full.whip(stream))
	if err != nil {
		return nil, Spread{}, err
	}
	defer stop()
	viewer, err := view(ctx, full.whep(stream), nil) // the second session: fullAt
	if err != nil {
		return nil, Spread{}, err
	}
	defer viewer.Close()
	if !full.serves(viewer.NodeURL()) {
		return nil, Spread{}, fmt.Errorf("%s was full before it should be", full.Name)
	}

	var viewers, publishers []placements
	for i := range t.cfg.Samples {
		if err := full.finds(ctx, stream, full); err != nil {
			return nil, Spread{}, err
		}
		p, err := full.redirects(ctx, func() (string, error) {
			s, err := viewOnce(ctx, full.whep(stream))
			return s.URL, err
		})
		if err != nil {
			return nil, Spread{}, err
		}
		viewers = append(viewers, p)
		p, err = full.redirects(ctx, func() (string, error) {
			stop, url, err := t.publish(ctx, full.whip(fmt.Sprintf("bench/moved/%d", i)))
			if err == nil {
				stop()
			}
			return url, err
		})
		if err != nil {
			return nil, Spread{}, err
		}
		publishers = append(publishers, p)
	}
	return []Selection{selection("viewer", viewers), selection("publisher", publishers)},
		spreadOf(append(ages(viewers), ages(publishers)...)), nil
}

// redirects returns the placements that n decided during f, which returns the
// node that served its client.
func (n node) redirects(ctx context.Context, f func() (served string, err error)) (placements, error) {
	before, err := n.decisions(ctx)
	if err != nil {
		return nil, err
	}
	since := time.Time{}
	if len(before) > 0 {
		since = before[len(before)-1].Time
	}
	served, err := f()
	if err != nil {
		return nil, err
	}
	if n.serves(served) {
		return nil, fmt.Errorf("%s is full and served a client itself", n.Name)
	}
	after, err := n.decisions(ctx)
	if err != nil {
		return nil, err
	}
	var made placements
	for _, d := range after {
		if d.Time.After(since) {
			made = append(made, d)
		}
	}
	if len(made) == 0 || made[len(made)-1].Chosen == "" {
		return nil, errors.New("a client was redirected by no decision")
	}
	return made, nil
}
