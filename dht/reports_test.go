package dht

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/pb"
)

// asks makes a query of the topic where the tests' nodes publish, with these
// reports.
func asks(reports ...*pb.Report) *pb.Request {
	return &pb.Request{Op: &pb.Request_Query{Query: &pb.Query{
		Topic: string(ShardTopic("test", "")), Need: signed.NeedToWire(view()), Policy: policy.Default().Version, Limit: holding.QueryLimit, Reports: reports,
	}}}
}

// Three seekers that report a shortfall make holders rank the node lower for
// all seekers; one or two reporters change nothing.
func TestReportsOfSeekersCount(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		reporters int
		said      float64
		want      float64
	}{
		{"one liar", 1, 0, 1},
		{"two liars", 2, 0, 1},
		{"three seekers", 3, 0.2, 0.2},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				nodes := newTestNetwork(t, 3)
				target := nodes[1].ID()
				for range c.reporters {
					reporter := dhttest.ID(t, dhttest.Key(t))
					for _, n := range nodes { // all are holders
						resp := n.answers(reporter, asks(holding.ReportToWire(holder.Report{Node: target, Trust: c.said})))
						if resp.Error != "" {
							t.Fatal(resp.Error)
						}
					}
				}
				check := func(how string, d Decision) {
					t.Helper()
					seen := 0
					scores := make(map[bool]float64) // the best score, of the target and of others
					for _, v := range d.Verdicts {
						if v.Rule != "" {
							continue
						}
						seen++
						scores[v.Node == target] = max(scores[v.Node == target], v.Score)
						want := 1.0
						if v.Node == target {
							want = c.want
						}
						if math.Abs(v.Trust-want) > 0.01 {
							t.Errorf("%s: %s is believed %v, want %v", how, v.Node, v.Trust, want)
						}
					}
					if seen != len(nodes) {
						t.Errorf("%s: %d candidates, want %d", how, seen, len(nodes))
					}
					// Scores of equal nodes differ a little, too: by the hash, and
					// by earlier offers.
					if lower := scores[true] < scores[false]-0.05; !lower && c.want < 1 || scores[true] < scores[false]-0.2 && c.want == 1 {
						t.Errorf("%s: the node scores %v, others %v", how, scores[true], scores[false])
					}
				}
				seeker := newClient(t, nodes)
				d, err := seeker.Seeker.Explain(t.Context(), CapacityTopic(), view(), nil)
				if err != nil {
					t.Fatal(err)
				}
				check("explained", d)
				_, d, err = seeker.Seeker.Place(t.Context(), CapacityTopic(), view(), nil)
				if err != nil {
					t.Fatal(err)
				}
				check("placed", d)

				q := asks()
				reply := nodes[0].answers(seeker.ID(), q).GetQuery()
				if told := len(reply.Reports) > 0; told != (c.want < 1) || len(reply.Digests) != len(nodes) {
					t.Errorf("a holder answers with reports %v and %d digests", reply.Reports, len(reply.Digests))
				}
			})
		})
	}
}

// A node that falls short is trusted less, in proportion to its claim at the
// time, and holders hear of it. A node that delivers all changes nothing.
func TestDelivered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes := newTestNetwork(t, 2)
		target := nodes[1]
		for i := range 8 {
			if _, err := target.ledger.Reserve(time.Now(), capacity.Request{ID: fmt.Sprint(i), From: nodes[0].ID(), Need: view()}); err != nil {
				t.Fatal(err)
			}
		}
		target.Publisher.Kick()
		seeker := newClient(t, nodes)
		question := func(topic Topic) *pb.Request { return seeker.Seeker.Question(topic, view()) }
		plain := proto.Size(question(CapacityTopic()))

		dhttest.Eventually(t, func() error {
			if h := nodes[0].table.Get(time.Now(), CapacityTopic(), target.ID()); h == nil || h.Record.Stress() < 0.8 {
				return fmt.Errorf("the record does not show the load yet: %v", h)
			}
			return nil
		})
		for _, n := range []*testNode{nodes[0], seeker} {
			n.newest.Forget() // nodes[0] holds the record, the seeker has to ask
			for _, share := range []float64{1, 0.95, math.NaN()} {
				n.Shortfalls.Delivered(target.ID(), share)
			}
			if got := n.reputation.Of(time.Now(), target.ID()); got != 1 {
				t.Errorf("who delivers is believed %v", got)
			}
			n.Shortfalls.Delivered(target.ID(), 0.5)
			dhttest.Eventually(t, func() error {
				if got := n.reputation.Of(time.Now(), target.ID()); math.Abs(got-0.4) > 0.01 {
					return fmt.Errorf("believed %v, want half of the 0.8 that it said were in use", got)
				}
				return nil
			})
		}
		reports := question(CapacityTopic()).GetQuery().Reports
		if len(reports) != 1 || peer.ID(reports[0].Node) != target.ID() || reports[0].Trust < 3_900 || reports[0].Trust > 4_100 {
			t.Errorf("a query says %v", reports)
		}
		if grown := proto.Size(question(CapacityTopic())) - plain; grown <= 0 || grown > 50 {
			t.Errorf("a report takes %d bytes", grown)
		}
		// Reports do not apply to provisioners and to the index of regions.
		for _, topic := range []Topic{holder.RegionsTopic, ProvisionTopic("test")} {
			if d := question(topic).GetQuery().Reports; len(d) != 0 {
				t.Errorf("a query of %s says %v", topic, d)
			}
		}
		// An unknown peer costs no more than one request.
		seeker.Shortfalls.Delivered(dhttest.ID(t, dhttest.Key(t)), 0)
		if got := seeker.reputation.Reports(time.Now()); len(got) != 1 {
			t.Errorf("reports %v", got)
		}
	})
}

func TestReportsOnTheWire(t *testing.T) {
	id := dhttest.ID(t, dhttest.Key(t))
	good := &pb.Report{Node: []byte(id), Trust: 2_500}
	got, err := holding.ReportsFromWire([]*pb.Report{good}, holder.MaxReports)
	if err != nil || !slices.Equal(got, []holder.Report{{Node: id, Trust: 0.25}}) || !proto.Equal(holding.ReportToWire(got[0]), good) {
		t.Errorf("%v, %v", got, err)
	}
	node := newTestNode(t, nil)
	for name, c := range map[string]struct {
		reports []*pb.Report
		say     string
	}{
		"too many":        {slices.Repeat([]*pb.Report{good}, holder.MaxReports+1), "9 reports, at most 8"},
		"no node":         {[]*pb.Report{good, {Trust: 1}}, "report: "},
		"not a peer's ID": {[]*pb.Report{{Node: []byte("x")}}, "report: "},
		"a trust above 1": {[]*pb.Report{{Node: []byte(id), Trust: 10_001}}, "a trust of 10001"},
	} {
		if resp := node.answers(id, asks(c.reports...)); !strings.Contains(resp.Error, c.say) {
			t.Errorf("%s: %v, want an error with %q", name, resp, c.say)
		}
	}
	b, err := frame.Append(nil, asks(&pb.Report{Node: []byte("a node"), Trust: 2_500}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "reports.frame", b)
}
