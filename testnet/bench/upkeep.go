package bench

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Upkeep is the cost of discovery for each node while nothing happens: bytes
// per second on the streams of its protocols, in and out.
type Upkeep struct {
	Seconds    float64            `json:"seconds"`
	Bytes      Spread             `json:"bytes_per_second"` // by node
	ByProtocol map[string]float64 `json:"by_protocol"`      // mean over nodes
}

// upkeep measures the network for cfg.Idle.
func (t *trial) upkeep(ctx context.Context) (Upkeep, error) {
	before, err := t.traffic(ctx)
	if err != nil {
		return Upkeep{}, err
	}
	began := time.Now()
	select {
	case <-time.After(t.cfg.Idle):
	case <-ctx.Done():
		return Upkeep{}, ctx.Err()
	}
	after, err := t.traffic(ctx)
	if err != nil {
		return Upkeep{}, err
	}
	u := Upkeep{Seconds: time.Since(began).Seconds(), ByProtocol: map[string]float64{}}
	var rates []float64
	for i := range t.nodes {
		sum := 0.0
		for protocol, bytes := range after[i] {
			rate := float64(bytes-before[i][protocol]) / u.Seconds
			sum += rate
			u.ByProtocol[protocol] += rate / float64(len(t.nodes))
		}
		rates = append(rates, sum)
	}
	u.Bytes = spreadOf(rates)
	for protocol, rate := range u.ByProtocol {
		if rate == 0 {
			delete(u.ByProtocol, protocol)
		}
	}
	return u, nil
}

// traffic returns, by node, the bytes of each protocol so far. Cascade links
// are not discovery.
func (t *trial) traffic(ctx context.Context) ([]map[string]int64, error) {
	all := make([]map[string]int64, len(t.nodes))
	work, ctx := errgroup.WithContext(ctx)
	for i, n := range t.nodes {
		work.Go(func() error {
			s, err := n.status(ctx)
			all[i] = map[string]int64{}
			for _, p := range s.Traffic {
				if name := protocolName(p.Protocol); name != "cascade/1" {
					all[i][name] += p.BytesIn + p.BytesOut
				}
			}
			return err
		})
	}
	return all, work.Wait()
}

// protocolName is a protocol's name without the network's prefix.
func protocolName(id string) string {
	if rest, ok := strings.CutPrefix(id, "/weir/"); ok {
		if _, name, ok := strings.Cut(rest, "/"); ok {
			return name
		}
	}
	if id == "" {
		return "negotiation"
	}
	return strings.TrimPrefix(id, "/")
}
