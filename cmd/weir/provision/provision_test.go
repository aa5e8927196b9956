package provision

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/cmd/weir/hook"
	"weir/dht/scale"
	"weir/sfu"
)

// A fakeCloud is the cloud that a provisioner's hook starts servers in.
type fakeCloud struct {
	mu     sync.Mutex
	nodes  map[string][]capacity.Record // by region
	at     []time.Duration              // when the hook ran
	inputs []hook.Input
	events []string

	looks   int
	room    peer.ID // a node with room
	unknown error   // the error of a failed search
}

// runProvisioner runs a provisioner for eu and us, in a synctest bubble, until
// the test ends.
func runProvisioner(t *testing.T, cloud *fakeCloud, settings policy.Provision, start func(context.Context, hook.Input) error) *Provisioner {
	t.Helper()
	began := time.Now()
	p := New(func(ctx context.Context, in hook.Input) error {
		cloud.mu.Lock()
		cloud.at, cloud.inputs = append(cloud.at, time.Since(began)), append(cloud.inputs, in)
		cloud.mu.Unlock()
		return start(ctx, in)
	}, "test", []string{"eu", "us"}, slog.New(slog.DiscardHandler))
	p.Policy = func() policy.Provision { return settings }
	p.Nodes = func(_ context.Context, region string) ([]capacity.Record, error) {
		cloud.mu.Lock()
		defer cloud.mu.Unlock()
		return cloud.nodes[region], nil
	}
	p.Room = func(context.Context, string, capacity.Need) (peer.ID, error) {
		cloud.mu.Lock()
		defer cloud.mu.Unlock()
		cloud.looks++
		return cloud.room, cloud.unknown
	}
	p.Invite = func() (string, error) { return "token", nil }
	p.Counts = NewOutcomes()
	p.Event = func(e sfu.Event) {
		cloud.mu.Lock()
		defer cloud.mu.Unlock()
		cloud.events = append(cloud.events, string(e.Kind))
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("run = %v, want the context's error", err)
		}
	})
	return p
}

func (c *fakeCloud) arrive(region, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.nodes == nil {
		c.nodes = map[string][]capacity.Record{}
	}
	c.nodes[region] = append(c.nodes[region], capacity.Record{Node: peer.ID(name), Region: region})
}

func (c *fakeCloud) ran() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Duration(nil), c.at...)
}

func counted(t *testing.T, o *Outcomes, name string) float64 {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(o.Counter)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == name {
			return m.GetCounter().GetValue()
		}
	}
	t.Fatalf("%s is not counted", name)
	return 0
}

var wantsRoom = capacity.Need{Purpose: capacity.View, Stream: "demo", Uplink: 5}

func reasonOf(err error) string {
	var refused *capacity.Refusal
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return ""
}

// However many nodes ask, the hook runs once, and again only after the cooldown.
func TestHookRunsOnceForMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{}
		cloud.arrive("eu", "old")
		p := runProvisioner(t, cloud, policy.Provision{Cooldown: 10 * time.Second, WaitTimeout: 5 * time.Second}, func(_ context.Context, in hook.Input) error {
			time.Sleep(2 * time.Second)
			cloud.arrive("eu", in.Request)
			return nil
		})
		started := 0
		for range 100 {
			c, err := p.Start(t.Context(), "eu", wantsRoom, "sessions")
			if err != nil {
				t.Fatal(err)
			}
			if c.Started {
				started++
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(8 * time.Second)
		if _, err := p.Start(t.Context(), "eu", wantsRoom, "sessions"); reasonOf(err) != scale.ProvisioningCooldown {
			t.Errorf("within the cooldown: %v", err)
		}
		time.Sleep(2 * time.Second)
		if c, err := p.Start(t.Context(), "eu", wantsRoom, "sessions"); err != nil || !c.Started {
			t.Errorf("after the cooldown: %+v, %v", c, err)
		}
		time.Sleep(5 * time.Second)
		if ran := cloud.ran(); started != 1 || len(ran) != 2 || ran[0] != 0 {
			t.Errorf("%d told that they started it; the hook ran at %v", started, ran)
		}
		in := cloud.inputs[0]
		if in.Action != "provision" || in.Region != "eu" || in.Join != "token" || in.Reason != "sessions" || in.Need.Stream != "demo" || in.Request == "" || in.Network != "test" {
			t.Errorf("the hook was given %+v", in)
		}
		for name, want := range map[string]float64{"started": 2, "arrived": 2, "failed": 0, "timed_out": 0} {
			if got := counted(t, p.Counts, name); got != want {
				t.Errorf("counted %v as %s, want %v", got, name, want)
			}
		}
	})
}

// Two regions that need servers at once get them one after the other.
func TestHooksRunOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{}
		running := 0
		p := runProvisioner(t, cloud, policy.Provision{Cooldown: 30 * time.Second}, func(_ context.Context, in hook.Input) error {
			running++ // only the loop's goroutine uses it
			if running > 1 {
				t.Error("two at once")
			}
			time.Sleep(5 * time.Second)
			running--
			cloud.arrive(in.Region, "new in "+in.Region)
			return nil
		})
		for _, region := range []string{"eu", "us"} {
			if c, err := p.Start(t.Context(), region, wantsRoom, "sessions"); err != nil || !c.Started {
				t.Errorf("%s: %+v, %v", region, c, err)
			}
		}
		time.Sleep(11 * time.Second)
		if ran := cloud.ran(); len(ran) != 2 || ran[1] != 5*time.Second {
			t.Errorf("the hook ran at %v", ran)
		}
		for region, st := range p.Status() {
			if st.Phase != "idle" || st.Failures != 0 {
				t.Errorf("%s: %+v", region, st)
			}
		}
	})
}

// All nodes that ask learn of failures, and retries become rarer.
func TestFailingHookBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{}
		p := runProvisioner(t, cloud, policy.Provision{Cooldown: 10 * time.Second, WaitTimeout: 5 * time.Second}, func(_ context.Context, in hook.Input) error {
			if len(cloud.ran()) == 3 {
				return nil // but no node comes
			}
			return errors.New("exit status 1")
		})
		reasons := map[string]int{}
		for range 200 {
			_, err := p.Start(t.Context(), "eu", wantsRoom, "sessions")
			reasons[reasonOf(err)]++
			time.Sleep(time.Second)
		}
		var at []int
		for _, d := range cloud.ran() {
			at = append(at, int(d.Round(time.Second).Seconds()))
		}
		// Ten seconds after the first failure, twenty after the second; the third
		// is known to be one ten seconds later, and then it is forty.
		if len(at) != 5 || at[1] != 10 || at[2] != 30 || at[3] < 80 || at[3] > 82 || at[4]-at[3] < 80 || at[4]-at[3] > 81 {
			t.Errorf("the hook ran at %v", at)
		}
		if reasons[scale.ProvisioningFailed] == 0 || reasons[scale.ProvisioningTimedOut] < 35 || reasons[scale.ProvisioningCooldown] > 0 {
			t.Errorf("refused with %v", reasons)
		}
		if st := p.Status()["eu"]; st.Failures != 5 || !strings.Contains(st.Last, "exit status 1") {
			t.Errorf("status %+v", st)
		}
	})
}

// An idle node may leave, but not while a server is being started.
func TestNobodyLeavesWhileAServerStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{}
		cloud.arrive("eu", "a")
		cloud.arrive("eu", "b")
		p := runProvisioner(t, cloud, policy.Provision{Cooldown: 10 * time.Second}, func(context.Context, hook.Input) error {
			time.Sleep(time.Second)
			cloud.arrive("eu", "c")
			return nil
		})
		if _, err := p.Start(t.Context(), "eu", wantsRoom, "sessions"); err != nil {
			t.Fatal(err)
		}
		if err := p.Leave(t.Context(), "eu", "a"); reasonOf(err) != "release-starting" {
			t.Errorf("leave = %v", err)
		}
		time.Sleep(2 * time.Second)
		if err := p.Leave(t.Context(), "eu", "a"); err != nil {
			t.Errorf("leave = %v", err)
		}
		if err := p.Leave(t.Context(), "eu", "b"); reasonOf(err) != "release-cooldown" {
			t.Errorf("leave = %v", err)
		}
	})
}

// A seeker's claim that no node has room starts no server: the provisioner
// searches itself, and answers with its result.
func TestProvisionerLooksItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cloud := &fakeCloud{room: "roomy"}
		p := runProvisioner(t, cloud, policy.Provision{Cooldown: 10 * time.Second, WaitTimeout: 5 * time.Second}, func(context.Context, hook.Input) error { return nil })
		for range 100 {
			_, err := p.Start(t.Context(), "eu", wantsRoom, "sessions")
			if reasonOf(err) != scale.ProvisioningRoom || !strings.Contains(err.Error(), peer.ID("roomy").String()) {
				t.Fatalf("there is room: %v", err)
			}
		}
		if cloud.looks != 1 {
			t.Errorf("looked %d times for 100 that asked at the same moment", cloud.looks)
		}
		time.Sleep(lookAgain)
		cloud.room, cloud.unknown = "", errors.New("3 of 4 holders did not answer")
		if _, err := p.Start(t.Context(), "eu", wantsRoom, "sessions"); reasonOf(err) != scale.ProvisioningUnknown || !strings.Contains(err.Error(), "3 of 4 holders") {
			t.Errorf("whether there is room is not known: %v", err)
		}
		time.Sleep(lookAgain)
		cloud.unknown = &capacity.Refusal{Reason: scale.ProvisioningWouldNotHelp}
		if _, err := p.Start(t.Context(), "eu", wantsRoom, "sessions"); reasonOf(err) != scale.ProvisioningWouldNotHelp {
			t.Errorf("nobody could take it: %v", err)
		}
		synctest.Wait()
		if ran := cloud.ran(); len(ran) > 0 {
			t.Errorf("the hook ran at %v", ran)
		}
		time.Sleep(lookAgain)
		cloud.unknown = nil
		if c, err := p.Start(t.Context(), "eu", wantsRoom, "sessions"); err != nil || !c.Started {
			t.Errorf("there is none: %+v, %v", c, err)
		}
		synctest.Wait()
		if ran := cloud.ran(); len(ran) != 1 {
			t.Errorf("the hook ran at %v", ran)
		}
		if room, unknown, vain := counted(t, p.Counts, "room"), counted(t, p.Counts, "unknown"), counted(t, p.Counts, "would_not_help"); room != 1 || unknown != 1 || vain != 1 {
			t.Errorf("counted %v, %v and %v", room, unknown, vain)
		}
	})
}
