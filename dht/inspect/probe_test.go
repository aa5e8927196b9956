package inspect

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

// newTestProber is the prober of node "self", which knows peers "a" and "b";
// the latter never answers.
func newTestProber(t *testing.T, asked func(p peer.ID, max int)) *Prober {
	t.Helper()
	coords, err := vivaldi.New()
	if err != nil {
		t.Fatal(err)
	}
	return NewProber(ProberConfig{
		Self: "self", Coords: coords, Table: holder.NewTable(holder.DefaultLimits()), Log: slog.New(slog.DiscardHandler),
		Fetch: func(_ context.Context, p peer.ID, max int) (*pb.FetchReply, time.Duration, error) {
			asked(p, max)
			if p == "b" {
				return nil, 0, errors.New("gone")
			}
			return &pb.FetchReply{Name: "node-" + string(p), HeldRecords: 3, HeldTopics: 2, Sealed: make([][]byte, 2*MaxFetch)}, 10 * time.Millisecond, nil
		},
		Locate:  func(context.Context, peer.ID) {},
		Wall:    func(now time.Time) time.Time { return now },
		Name:    func() string { return "me" },
		Sealed:  func(int) [][]byte { return make([][]byte, 1) },
		Members: func() []peer.AddrInfo { return []peer.AddrInfo{{ID: "a"}, {ID: "b"}} },
		Known:   func() []peer.ID { return []peer.ID{"b", "a", "b"} },
		Holders: func() []peer.ID { return []peer.ID{"b"} },
		Addrs:   func(peer.ID) []multiaddr.Multiaddr { return nil },
		Conns:   func(peer.ID) []network.Conn { return nil },
		Member:  func(p peer.ID) bool { return p == "a" },
		RTT:     func(peer.ID) time.Duration { return 1500 * time.Microsecond },
	})
}

// New peers are asked soon after each other, and then one every few seconds, in
// turn, whether they answer or not.
func TestProberAsksInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order string
		b := newTestProber(t, func(p peer.ID, max int) {
			if order += string(p); max != 0 {
				t.Errorf("asked for %d records", max)
			}
		})
		ctx, cancel := context.WithTimeout(t.Context(), 2*probeNew+4*probeEvery+time.Millisecond)
		defer cancel()
		if err := b.Run(ctx); !errors.Is(err, context.DeadlineExceeded) || order != "ababab" {
			t.Errorf("%v; asked %s, want each three times", err, order)
		}
	})
}

func TestProberTellsOfPeers(t *testing.T) {
	asked := 0
	b := newTestProber(t, func(peer.ID, int) { asked++ })
	if own, err := b.Fetch(t.Context(), "self"); err != nil || len(own) != 1 || asked > 0 {
		t.Errorf("own records: %d, %v, asked %d times", len(own), err, asked)
	}
	if got, err := b.Fetch(t.Context(), "a"); err != nil || len(got) != MaxFetch {
		t.Errorf("%d records, %v; want %d at most", len(got), err, MaxFetch)
	}
	if _, err := b.Fetch(t.Context(), "b"); err == nil {
		t.Error("a peer that is gone answers")
	}
	list := b.Peers()
	if len(list) != 2 || list[0].ID != "a" || list[1].ID != "b" {
		t.Fatalf("%+v", list)
	}
	if a := list[0]; a.Name != "node-a" || a.Holds != 3 || a.HoldsTopics != 2 || !a.Member || a.Holder || a.Connected || a.RTT != 1.5 || a.Told.IsZero() {
		t.Errorf("%+v", a)
	}
	if z := list[1]; z.Name != "" || !z.Told.IsZero() || z.Member || !z.Holder {
		t.Errorf("%+v", z)
	}
	if got, want := b.Names(), map[peer.ID]string{"self": "me", "a": "node-a"}; !maps.Equal(got, want) {
		t.Errorf("names %v, want %v", got, want)
	}
}
