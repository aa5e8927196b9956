package dht

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/dhttest"
	"weir/dht/pb"
)

// Clients are sent to no address that only the record vouches for: such a
// candidate is skipped, and its lease given back.
func TestPlaceSendsNobodyOutOfScope(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		var clerks []*clerk
		for _, url := range []string{"http://169.254.169.254/latest", "http://10.0.0.7:6379", "http://localhost.internal"} {
			var f *fake
			c := &clerk{reply: func(from peer.ID, req *pb.Reserve) *pb.ReserveResponse {
				r := f.record()
				r.URL = url
				return &pb.ReserveResponse{Lease: f.lease(t, from, req), Record: seal(t, r, f.key)}
			}}
			f = newFake(t, nodes[0].info(), nil)
			f.host.SetStreamHandler(testProtocol(testReserves), c.handle)
			f.host.SetStreamHandler(testProtocol(testRecords), hang)
			r := f.record()
			r.URL, r.Sessions.Limit = url, 1_000 // the best of all
			for _, n := range nodes {
				f.host.Peerstore().AddAddrs(n.ID(), n.Host().Addrs(), time.Hour)
				f.call(t, n.ID(), advertisement(&pb.Entry{Topic: string(testHome), Sealed: seal(t, r, f.key)}))
			}
			clerks = append(clerks, c)
		}
		for range 5 {
			placed, d, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), []peer.ID{nodes[0].ID()})
			if err != nil || placed.Lease.Target != nodes[1].ID() {
				t.Fatalf("placed on %s (%s), %v: %+v", placed.Lease.Target, placed.Candidate.Record.URL, err, d.Reservations)
			}
			for _, r := range d.Reservations {
				if r.Node != nodes[1].ID() && r.Reason != "address" && r.Reason != "abandoned" {
					t.Errorf("passed over for %q: %s", r.Reason, r.Detail)
				}
			}
		}
		dhttest.Eventually(t, func() error {
			for _, c := range clerks {
				reserved, released := c.seen()
				slices.Sort(reserved)
				slices.Sort(released) // sent at the same time, they arrive in any order
				if !slices.Equal(reserved, released) {
					return fmt.Errorf("reserved %v, released %v", reserved, released)
				}
			}
			return nil
		})
		// A cascade uses libp2p, whatever the URL.
		need := view()
		need.Purpose = capacity.Cascade
		if err := reachable(nodes[0].cfg.Gate)(need, &capacity.Record{URL: "http://10.0.0.7"}); err != nil {
			t.Errorf("a pull: %v", err)
		}
	})
}
