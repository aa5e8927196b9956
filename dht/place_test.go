package dht

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

func TestPlaceReservesOnOneAndReleasesTheOther(t *testing.T) {
	nodes := newTestNetwork(t, 4)
	need := capacity.Need{Purpose: capacity.View, Stream: "a", Uplink: 1_000_000}
	placed, d, err := nodes[0].Place(context.Background(), CapacityTopic(), need, []peer.ID{nodes[0].ID()})
	if err != nil {
		t.Fatalf("Place: %v (%+v)", err, d)
	}
	chosen := placed.Candidate.Record.Node
	if d.Chosen != chosen || placed.Lease.Target != chosen || placed.Lease.From != nodes[0].ID() {
		t.Errorf("decision %s, candidate %s, lease %+v do not agree", d.Chosen, chosen, placed.Lease)
	}
	if len(d.Verdicts) != 3 || len(d.Reservations) < 2 {
		t.Errorf("%d verdicts and %d reservations, want 3 and at least 2", len(d.Verdicts), len(d.Reservations))
	}
	eventually(t, func() error {
		for _, n := range nodes {
			want := 0
			if n.ID() == chosen {
				want = 1
			}
			if got := n.ledger.Totals(time.Now()).Leases; got != want {
				return errors.New("leases are not those of the chosen node only")
			}
		}
		return nil
	})
	nodes[0].ReleaseLease(context.Background(), placed.Lease)
	eventually(t, func() error {
		for _, n := range nodes {
			if n.ledger.Totals(time.Now()).Leases != 0 {
				return errors.New("a lease is left")
			}
		}
		return nil
	})
}
