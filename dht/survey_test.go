package dht

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht/dhttest"
	"weir/dht/holder"
)

// A survey has every other node's record once, and names the holders that did
// not answer.
func TestSurvey(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 4)
		surveys := func(silent ...peer.ID) func() error {
			return func() error {
				s, err := nodes[0].Reader.Survey(t.Context(), CapacityTopic())
				if err != nil {
					return err
				}
				var found []peer.ID
				for _, c := range s.Candidates {
					found = append(found, c.Record.Node)
				}
				want := others(nodes, nodes[0].ID())
				slices.Sort(want)
				if !slices.Equal(found, want) || s.Me.Node != nodes[0].ID() || !slices.Equal(s.Silent, silent) {
					return fmt.Errorf("found %v as %s, without %v; want %v, without %v", found, s.Me.Node, s.Silent, want, silent)
				}
				return nil
			}
		}
		dhttest.Eventually(t, surveys())

		hung := newFake(t, nodes[0].info(), map[protocol.ID]network.StreamHandler{testRecords: hang})
		nodes[0].connect(t, hung)
		dhttest.Eventually(t, func() error {
			if !slices.Contains(nodes[0].Holders(CapacityTopic()), hung.host.ID()) {
				return fmt.Errorf("the one that hangs is not a holder yet")
			}
			return nil
		})
		dhttest.Eventually(t, surveys(hung.host.ID()))

		ended, end := context.WithCancel(t.Context())
		end()
		if _, err := nodes[0].Reader.Survey(ended, CapacityTopic()); err == nil {
			t.Error("a survey without time has an answer")
		}
	})
}

// A node that alone has moved to a finer shard is surveyed, also before so many
// have that the shard counts as split.
func TestSurveyFollowsASingleNotice(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		key, now := dhttest.Key(t), time.Now()
		r := capacity.Record{Node: dhttest.ID(t, key), Seq: 1, Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.MaxTTL, Region: "test"}
		coarse, fine := ShardTopic("test", ""), ShardTopic("test", holder.IDBits(r.Node)[:1])
		if err := nodes[0].table.Put(now, now, fine, r, seal(t, r, key)); err != nil {
			t.Fatal(err)
		}
		nodes[0].table.NoteSplit(now, now.Add(r.TTL), coarse, r.Node)
		for i, seeker := range nodes {
			s, err := seeker.Reader.Survey(t.Context(), coarse)
			if err != nil || !slices.ContainsFunc(s.Candidates, func(c policy.Candidate) bool { return c.Record.Node == r.Node }) {
				t.Errorf("node %d: %d candidates, %v; without the one in %s", i, len(s.Candidates), err, fine)
			}
		}
	})
}
