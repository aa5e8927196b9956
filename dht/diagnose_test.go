package dht

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/inspect"
	"weir/dht/pb"
)

// diagnosed returns an error unless the check of that name ended with that
// outcome and code, with all of facts among the facts it rests on.
func diagnosed(all []inspect.Finding, check string, o inspect.Outcome, code inspect.Code, facts ...string) error {
	for _, f := range all {
		lacks := func(fact string) bool { return !strings.Contains(fmt.Sprintf("%+v", f.Facts), fact) }
		if f.Check == check && f.Outcome == o && f.Code == code && !slices.ContainsFunc(facts, lacks) {
			return nil
		}
	}
	return fmt.Errorf("%s is not %s by %s with %q; all: %+v", check, o, code, facts, all)
}

func TestHealthyNetworkIsDiagnosedSo(t *testing.T) {
	nodes := newTestNetwork(t, 3)
	for _, n := range nodes {
		dhttest.Eventually(t, func() error {
			for _, c := range n.Diagnose(t.Context(), false) {
				if c.Outcome != inspect.Fine {
					return fmt.Errorf("%+v", c)
				}
			}
			return nil
		})
	}
}

// A lone node names the bootstrap peer that is dead, the one that is another
// node than expected, and the one of another network.
func TestLoneNodeIsToldWhy(t *testing.T) {
	t.Parallel()
	other := newTestNode(t, func(c *Config) { c.Network = "other" })
	other.run(t)
	dead := newTestNode(t, nil)
	deadInfo := dead.info()
	dead.stop()
	impostor := peer.AddrInfo{ID: dhttest.ID(t, dhttest.Key(t)), Addrs: other.Host().Addrs()[:1]}
	n := newTestNode(t, func(c *Config) { c.Bootstrap = []peer.AddrInfo{deadInfo, other.info(), impostor} })
	n.run(t)
	n.awaitReady(t)
	all := n.Diagnose(t.Context(), false)
	for _, err := range []error{
		diagnosed(all, "bootstrap", inspect.Failure, inspect.BootstrapUnreached, deadInfo.Addrs[0].String(), deadInfo.ID.String(), string(inspect.PortClosed)),
		diagnosed(all, "bootstrap", inspect.Failure, inspect.BootstrapUnreached, other.Host().Addrs()[0].String(), NetworkID("other"), string(inspect.OtherNetwork)),
		diagnosed(all, "bootstrap", inspect.Failure, inspect.BootstrapUnreached, string(inspect.WrongID), other.ID().String()),
		diagnosed(all, "network", inspect.Failure, inspect.NetworkForeign, NetworkID("other")),
		diagnosed(all, "dht", inspect.Fine, inspect.Table),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}

// minuteAhead returns an error unless the finding says that the peers' clocks
// are a minute ahead, to a tenth of a second.
func minuteAhead(all []inspect.Finding) error {
	for _, f := range all {
		if f.Check == "clock" && f.Ahead.Round(100*time.Millisecond) != time.Minute {
			return fmt.Errorf("others are %v ahead", f.Ahead)
		}
	}
	return nil
}

// A node whose clock differs from every peer's is told so, by the peers'
// reports.
func TestSkewedClockIsDiagnosed(t *testing.T) {
	n := newTestNode(t, nil)
	n.run(t)
	n.awaitReady(t)
	for range 3 {
		f := newFake(t, n.info(), map[protocol.ID]network.StreamHandler{
			testRecords: answer(func(_ peer.ID, req *pb.Request) *pb.Response {
				if req.GetFetch() == nil {
					return &pb.Response{Error: "a fake"}
				}
				return &pb.Response{Op: &pb.Response_Fetch{Fetch: &pb.FetchReply{NowMs: time.Now().Add(time.Minute).UnixMilli(), Mode: string(directory.Push)}}}
			}),
		})
		dhttest.Eventually(t, func() error {
			if !n.peers.Member(f.host.ID()) {
				return errors.New("not a member yet")
			}
			return nil
		})
	}
	dhttest.Eventually(t, func() error {
		all := n.Diagnose(t.Context(), false)
		return errors.Join(
			diagnosed(all, "clock", inspect.Failure, inspect.ClockOff),
			minuteAhead(all),
			diagnosed(all, "discovery", inspect.Failure, inspect.ModeDiffers, "Mode:push"),
			diagnosed(all, "record", inspect.Failure, inspect.RecordUnknown),
		)
	})
}

// Peers that are connected by TCP only are dialled over QUIC, whose port may be
// closed.
func TestUDPIsTried(t *testing.T) {
	t.Parallel()
	tcpOnly := func(ai peer.AddrInfo) peer.AddrInfo {
		var addrs []multiaddr.Multiaddr
		for _, a := range ai.Addrs {
			if _, err := a.ValueForProtocol(multiaddr.P_QUIC_V1); err != nil {
				addrs = append(addrs, a)
			}
		}
		return peer.AddrInfo{ID: ai.ID, Addrs: addrs}
	}
	for name, c := range map[string]struct {
		lies bool // about its QUIC address
		want inspect.Outcome
		code inspect.Code
	}{"reached": {false, inspect.Fine, inspect.UDPReaches}, "not reached": {true, inspect.Failure, inspect.UDPBlocked}} {
		t.Run(name, func(t *testing.T) {
			first := newTestNode(t, nil)
			first.run(t)
			n := newTestNode(t, func(c *Config) {
				c.Bootstrap = []peer.AddrInfo{tcpOnly(first.info())}
				c.Listen = []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}
			})
			n.run(t)
			n.awaitReady(t)
			dhttest.Eventually(t, func() error {
				if len(n.peers.Members()) == 0 {
					return errors.New("not connected")
				}
				return nil
			})
			if c.lies {
				closed, err := net.ListenPacket("udp4", "127.0.0.1:0") // no process reads from it
				if err != nil {
					t.Fatal(err)
				}
				defer closed.Close()
				ps := n.Host().Peerstore()
				ps.ClearAddrs(first.ID())
				port := closed.LocalAddr().(*net.UDPAddr).Port
				ps.AddAddrs(first.ID(), []multiaddr.Multiaddr{multiaddr.StringCast(fmt.Sprintf("/ip4/127.0.0.1/udp/%d/quic-v1", port))}, time.Hour)
			}
			if err := diagnosed(n.Diagnose(t.Context(), false), "udp", c.want, c.code); err != nil {
				t.Error(err)
			}
		})
	}
}

// Peers that have ended are distinguished from peers that only do not answer.
func TestLossOfPeersIsDiagnosed(t *testing.T) {
	t.Parallel()
	nodes := newTestNetwork(t, 4)
	n := nodes[3]
	dhttest.Eventually(t, func() error {
		for _, p := range n.Prober.Peers() {
			if p.Told.IsZero() {
				return fmt.Errorf("%s has not said anything", p.ID)
			}
		}
		return nil
	})
	for _, gone := range nodes[1:3] {
		gone.stop()
	}
	dhttest.Eventually(t, func() error {
		return diagnosed(n.Diagnose(t.Context(), false), "partition", inspect.Warning, inspect.PeersEnded, "Count:2", nodes[1].ID().String())
	})
	nodes[0].Host().RemoveStreamHandler(n.protocols.records) // connected, but not answering
	nodes[0].Host().SetStreamHandler(n.protocols.records, hang)
	all := n.Diagnose(t.Context(), false)
	for _, err := range []error{
		diagnosed(all, "partition", inspect.Failure, inspect.PeersLost, "Count:1", nodes[0].ID().String()),
		diagnosed(all, "bootstrap", inspect.Warning, inspect.BootstrapUnreached, string(inspect.Unresponsive)),
		diagnosed(all, "network", inspect.Failure, inspect.NetworkUnresponsive),
	} {
		if err != nil {
			t.Error(err)
		}
	}
}
