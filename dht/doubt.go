package dht

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/place"
)

// deliversFully is the share of what a peer sends from which on it is taken to
// have delivered: the rest is what any network loses.
const deliversFully = 0.95

// Delivered takes in which share of what p sends over a cascade link has come
// of late, 0…1. One that falls short is believed less by what it claims at the
// time, see [holder.Borne], and holders hear of it with every query; one that
// delivers is no news.
//
// It does not block. If p's newest record is not at hand, p is asked for it in
// the background, and nothing comes of it if p does not answer.
func (n *Node) Delivered(p peer.ID, share float64) {
	if !(share < deliversFully) {
		return
	}
	now := time.Now()
	r, ok := n.newest.Of(now, p)
	if h := n.table.Get(now, CapacityTopic(), p); h != nil && (!ok || h.Record.Seq > r.Seq) {
		r, ok = h.Record, true
	}
	if ok {
		n.fellShort(&r, share)
		return
	}
	n.overlay.Go(func() {
		ctx, cancel := context.WithTimeout(n.overlay.Context(), place.ReserveTime)
		defer cancel()
		r, err := n.ask(ctx, p)
		if err != nil {
			n.log.Debug("shortfall not noted", "peer", p, "share", share, "err", err)
			return
		}
		n.fellShort(&r, share)
	})
}

// fellShort notes that r's node delivered only share while r was its newest
// record.
func (n *Node) fellShort(r *capacity.Record, share float64) {
	borne := holder.Borne(r.Stress(), share)
	n.beliefs.FellShort(time.Now(), r.Node, borne)
	n.log.Debug("node fell short", "peer", r.Node, "share", share, "stress", r.Stress(), "borne", borne)
}

// ask has p say what it claims, and verifies that.
func (n *Node) ask(ctx context.Context, p peer.ID) (capacity.Record, error) {
	own, err := n.Fetch(ctx, p)
	if err != nil {
		return capacity.Record{}, err
	}
	if len(own) == 0 {
		return capacity.Record{}, errors.New("it publishes nothing")
	}
	now := time.Now()
	r, err := signed.OpenRecord(own[0], n.wall(now))
	if err != nil {
		return capacity.Record{}, err
	}
	if r.Node != p {
		return capacity.Record{}, holding.ErrNotYours
	}
	r, _, ok := n.newest.See(now, r, own[0])
	if !ok {
		return capacity.Record{}, capacity.ErrExpired
	}
	return r, nil
}
