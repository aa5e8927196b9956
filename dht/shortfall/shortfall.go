package shortfall

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/place"
)

// deliversFully is the share of a peer's packets from which on it counts as
// delivering all: any network loses the rest.
const deliversFully = 0.95

// Config is a [Judge]'s view of its node; all of it is needed.
type Config struct {
	Reputation *holder.Reputation
	Newest     *place.Memory
	// Held returns p's capacity record, if this node holds it.
	Held func(now time.Time, p peer.ID) (capacity.Record, bool)
	// Fetch asks p for its own sealed records, its capacity record first.
	Fetch func(ctx context.Context, p peer.ID) ([][]byte, error)
	// Wall is the time by the clock to compare with other nodes' times.
	Wall func(now time.Time) time.Time
	// Go runs f in a goroutine of the node, which ends ctx and waits for f when
	// it closes.
	Go  func(f func(ctx context.Context)) bool
	Log *slog.Logger
}

// A Judge compares deliveries with claims. It is safe for concurrent use.
type Judge struct{ cfg Config }

// New returns a Judge without any experience.
func New(cfg Config) *Judge { return &Judge{cfg} }

// Delivered takes in the share of p's packets over a cascade link that has
// arrived lately, 0…1. A peer that falls short is trusted less, in proportion
// to its claim at the time, see [holder.ClaimAccuracy], and holders are told with every
// query; a peer that delivers changes nothing.
//
// It does not block. If p's newest record is not at hand, p is asked for it in
// the background, and the report is dropped if p does not answer.
func (j *Judge) Delivered(p peer.ID, share float64) {
	if !(share < deliversFully) {
		return
	}
	now := time.Now()
	r, ok := j.cfg.Newest.Of(now, p)
	if held, holds := j.cfg.Held(now, p); holds && (!ok || held.Seq > r.Seq) {
		r, ok = held, true
	}
	if ok {
		j.fellShort(&r, share)
		return
	}
	j.cfg.Go(func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, place.ReserveTime)
		defer cancel()
		r, err := j.ask(ctx, p)
		if err != nil {
			j.cfg.Log.Debug("shortfall not noted", "peer", p, "share", share, "err", err)
			return
		}
		j.fellShort(&r, share)
	})
}

// fellShort notes that r's node delivered only share while r was its newest
// record.
func (j *Judge) fellShort(r *capacity.Record, share float64) {
	borne := holder.ClaimAccuracy(r.Stress(), share)
	j.cfg.Reputation.FellShort(time.Now(), r.Node, borne)
	j.cfg.Log.Debug("node fell short", "peer", r.Node, "share", share, "stress", r.Stress(), "borne", borne)
}

// ask fetches and verifies p's own record.
func (j *Judge) ask(ctx context.Context, p peer.ID) (capacity.Record, error) {
	own, err := j.cfg.Fetch(ctx, p)
	if err != nil {
		return capacity.Record{}, err
	}
	if len(own) == 0 {
		return capacity.Record{}, errors.New("it publishes nothing")
	}
	now := time.Now()
	r, err := signed.OpenRecord(own[0], j.cfg.Wall(now))
	if err != nil {
		return capacity.Record{}, err
	}
	if r.Node != p {
		return capacity.Record{}, errors.New("record of another node")
	}
	r, _, ok := j.cfg.Newest.See(now, r, own[0])
	if !ok {
		return capacity.Record{}, capacity.ErrExpired
	}
	return r, nil
}
