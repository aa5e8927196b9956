package dht

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/directory"
	"weir/dht/pb"
	"weir/dht/scale"
)

var nobodyHasRoom = capacity.Need{Purpose: capacity.View, Stream: "demo", Uplink: 1}

// asked counts the requests for servers by seeker and server.
type asked struct {
	mu     sync.Mutex
	starts int
	leaves int
}

func (a *asked) counts() (starts, leaves int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.starts, a.leaves
}

// provisions configures c as a provisioner that accepts every request.
func (a *asked) provisions(c *Config, regions ...string) {
	c.Provisioner = &scale.Provisioner{
		Regions: regions,
		Start: func(_ context.Context, region string, need capacity.Need, reason string) (scale.PendingServer, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.starts++
			if reason == "no" {
				return scale.PendingServer{}, &capacity.Refusal{Reason: scale.ProvisioningFailed, Detail: "in " + region, RetryAfter: time.Minute}
			}
			return scale.PendingServer{Request: "r1", Until: time.Now().Add(time.Minute), Started: a.starts == 1}, nil
		},
		Leave: func(_ context.Context, region string, node peer.ID) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.leaves++
			return nil
		},
	}
}

// newProvisionNetwork runs a network whose first nodes are provisioners of
// region, each of which knows all others.
func newProvisionNetwork(t *testing.T, size, provisioners int, region string) (nodes []*testNode, tasks map[peer.ID]*asked, order []peer.ID) {
	t.Helper()
	tasks = make(map[peer.ID]*asked)
	i := 0
	nodes = newTestNetworkOf(t, size, func(i int, n *testNode) {
		n.mu.Lock()
		defer n.mu.Unlock()
		if i < provisioners {
			n.features = []string{ProvisionFeature}
		}
	}, func(c *Config) {
		if i++; i <= provisioners {
			a := &asked{}
			a.provisions(c, region)
			tasks[dhttest.ID(t, c.Key)] = a
			order = append(order, dhttest.ID(t, c.Key))
		}
	})
	order = directory.Closest(kb.ConvertKey(ProvisionTopic(region).Key(nodes[0].NetworkID())), order)
	for _, n := range nodes {
		dhttest.Eventually(t, func() error {
			list, err := n.Provisioners.List(t.Context(), region)
			if err == nil && len(list) != provisioners {
				err = fmt.Errorf("%s knows of %d provisioners", n.ID(), len(list))
			}
			return err
		})
	}
	return nodes, tasks, order
}

// However many seekers there are, all ask the same provisioner, and the next
// one once that has gone.
func TestOneProvisionerIsElected(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes, tasks, order := newProvisionNetwork(t, 5, 3, "eu")
		var all sync.WaitGroup
		for _, n := range nodes {
			all.Go(func() {
				if c, err := n.Provisioners.Provision(t.Context(), "eu", nobodyHasRoom, "sessions"); err != nil || c.Request != "r1" || time.Until(c.Until) < 50*time.Second {
					t.Errorf("Provision = %+v, %v", c, err)
				}
				if err := n.Provisioners.AskLeave(t.Context(), "eu"); err != nil {
					t.Errorf("AskLeave = %v", err)
				}
			})
		}
		all.Wait()
		for i, id := range order {
			want := 0
			if i == 0 {
				want = len(nodes)
			}
			if starts, leaves := tasks[id].counts(); starts != want || leaves != want {
				t.Errorf("provisioner %d was asked %d times for a server and %d times for leave, want %d of each", i, starts, leaves, want)
			}
		}
		// A refusal is final: no other provisioner is asked.
		var refusal *capacity.Refusal
		if _, err := nodes[4].Provisioners.Provision(t.Context(), "eu", nobodyHasRoom, "no"); !errors.As(err, &refusal) || refusal.Reason != scale.ProvisioningFailed || refusal.RetryAfter != time.Minute {
			t.Errorf("Provision = %v", err)
		}
		if starts, _ := tasks[order[1]].counts(); starts > 0 {
			t.Error("another one was asked after a refusal")
		}
		if _, err := nodes[4].Provisioners.Provision(t.Context(), "us", nobodyHasRoom, "sessions"); !errors.Is(err, scale.ErrNoProvisioner) {
			t.Errorf("in a region without provisioners: %v", err)
		}

		for _, n := range nodes {
			if n.ID() == order[0] {
				_ = n.Host().Close() // it dies: its record stays for a while
			}
		}
		for _, n := range nodes {
			if n.ID() == order[0] {
				continue
			}
			if c, err := n.Provisioners.Provision(t.Context(), "eu", nobodyHasRoom, "sessions"); err != nil || c.Request != "r1" {
				t.Errorf("with the elected one dead: %+v, %v", c, err)
			}
		}
		if starts, _ := tasks[order[1]].counts(); starts != len(nodes)-1 {
			t.Errorf("the next one was asked %d times", starts)
		}
	})
}

// A seeker that knows only one provisioner is redirected to the closer one,
// once.
func TestProvisionerNamesACloserOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		nodes, tasks, order := newProvisionNetwork(t, 3, 2, "eu")
		byID := make(map[peer.ID]*testNode)
		for _, n := range nodes {
			byID[n.ID()] = n
		}
		far, seeker := byID[order[1]], nodes[2]
		request := func(final bool) scale.Request {
			return scale.Request{Region: "eu", Need: nobodyHasRoom, Reason: "sessions", Final: final}
		}
		reply, err := seeker.Provisioners.Ask(t.Context(), far.ID(), request(false))
		if err != nil || reply.Closer != order[0] || reply.Server.Request != "" {
			t.Errorf("the farther one answered %+v, %v; want the closer one named", reply, err)
		}
		reply, err = seeker.Provisioners.Ask(t.Context(), far.ID(), request(true))
		if err != nil || reply.Closer != "" || reply.Server.Request == "" {
			t.Errorf("asked to answer itself: %+v, %v", reply, err)
		}
		reply, err = seeker.Provisioners.Ask(t.Context(), order[0], request(false))
		if err != nil || reply.Closer != "" || reply.Server.Request == "" {
			t.Errorf("the closest one answered %+v, %v", reply, err)
		}
		for i, id := range order {
			if starts, _ := tasks[id].counts(); starts != 1 {
				t.Errorf("provisioner %d was asked %d times", i, starts)
			}
		}
		// Other nodes do not serve the protocol at all.
		if _, err := seeker.Provisioners.Ask(t.Context(), seeker.ID(), request(false)); err == nil {
			t.Error("a node asked itself")
		}
		if reply, err := nodes[0].Provisioners.Ask(t.Context(), seeker.ID(), request(false)); err == nil {
			t.Errorf("a node that starts no servers answers %+v", reply)
		}
	})
}

// A node without the feature in its record is not accepted in the provision
// topic.
func TestProvisionTopicHoldsProvisioners(t *testing.T) {
	bubble(t, func(t *testing.T) {
		topic := ProvisionTopic("eu")
		for _, c := range []struct {
			name string
			r    capacity.Record
			fits bool
		}{
			{"one of the region", capacity.Record{Region: "eu", Features: []string{ProvisionFeature}}, true},
			{"one elsewhere, for it may serve several", capacity.Record{Region: "us", Features: []string{"whip", ProvisionFeature}}, true},
			{"a node without the feature", capacity.Record{Region: "eu"}, false},
			{"a carrier's record", capacity.Record{Features: []string{ProvisionFeature}, Carries: &capacity.StreamInfo{Stream: "a"}}, false},
		} {
			if err := topic.Fits(&c.r); (err == nil) != c.fits {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		for topic, ok := range map[Topic]bool{
			ProvisionTopic(""): true, ProvisionTopic("*"): true, ProvisionTopic("a/b"): true, "provision/": false, "provision/a/b": false, "provision/%61": false, "provision": false,
		} {
			if err := topic.Check(); (err == nil) != ok {
				t.Errorf("%s: check says %v", topic, err)
			}
		}
	})
}

func TestProvisionFramesAreAsEver(t *testing.T) {
	for name, m := range map[string]proto.Message{
		"provision.frame": &pb.ProvisionRequest{Op: &pb.ProvisionRequest_Provision{Provision: &pb.Provision{Region: "eu", Need: signed.NeedToWire(nobodyHasRoom), Reason: "sessions", Final: true}}},
		"leave.frame":     &pb.ProvisionRequest{Op: &pb.ProvisionRequest_Leave{Leave: &pb.Leave{Region: "eu"}}},
		"coming.frame":    &pb.ProvisionResponse{Coming: &pb.Coming{Request: "r1", UntilMs: 8000, Started: true}},
	} {
		b, err := frame.Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, b)
	}
}
