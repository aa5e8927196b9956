package dht

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity/event"
	"weir/dht/dhttest"
	"weir/dht/inspect"
	"weir/dht/overlay"
)

// Two processes with one identity take each other's place in the network; each
// of them notices and reports it.
func TestCopiedIdentityIsNoticed(t *testing.T) {
	bubble(t, func(t *testing.T) {
		others := newTestNetwork(t, 2)
		key := dhttest.Key(t)
		events := make(chan event.Event, 1024)
		var twins []*testNode
		for range 2 {
			twins = append(twins, newTestNode(t, func(c *Config) {
				c.Key, c.Bootstrap = key, []peer.AddrInfo{others[0].info(), others[1].info()}
				c.Event = func(e event.Event) {
					select {
					case events <- e:
					default:
					}
				}
			}))
		}
		for _, n := range twins {
			n.run(t)
			n.awaitReady(t)
		}
		for _, n := range twins {
			dhttest.Eventually(t, func() error {
				if _, seen := n.copies.Seen(); !seen {
					return errors.New("the other process is not noticed")
				}
				return nil
			})
			if err := diagnosed(n.Diagnose(t.Context(), false), "identity", inspect.Failure, inspect.IdentityCopied); err != nil {
				t.Error(err)
			}
		}
		for found := false; !found; {
			select {
			case e := <-events:
				found = e.Kind == event.NodeCopied && strings.Contains(e.Detail, "/ip4/127.0.0.1/")
			default:
				t.Fatal("there was no event of it")
			}
		}
		if _, seen := others[0].copies.Seen(); seen {
			t.Error("another node takes itself for copied")
		}
	})
}

func TestSelfElsewhere(t *testing.T) {
	self := peer.ID("self")
	own := []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.1/tcp/4001"), multiaddr.StringCast("/ip4/127.0.0.1/tcp/4001")}
	bootstrap := []peer.AddrInfo{
		{ID: "other", Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.9/tcp/4001")}},
		{ID: self, Addrs: []multiaddr.Multiaddr{own[0], multiaddr.StringCast("/dns4/example.org/tcp/4001"), multiaddr.StringCast("/ip4/192.0.2.2/tcp/4001")}},
	}
	if got := overlay.Elsewhere(self, bootstrap, own); !slices.EqualFunc(got, []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.2/tcp/4001")}, multiaddr.Multiaddr.Equal) {
		t.Errorf("got %v", got)
	}
}
