package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/dht"
	"weir/dht/dhttest"
	"weir/dht/scale"
	"weir/sfu/client"
	"weir/testnet"
)

// stranger joins the network as a client does, with a key of its own.
func (w *world) stranger() *dht.Node {
	w.t.Helper()
	key := dhttest.Key(w.t)
	ai, err := dht.ParseBootstrap(w.n(1).P2P[0])
	if err != nil {
		w.t.Fatal(err)
	}
	n, err := dht.Listen(dht.Config{Key: key, Network: "open", Bootstrap: []peer.AddrInfo{ai}, Client: true})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = n.Run(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-ran
		_ = n.Close()
	})
	select {
	case <-n.Ready():
	case <-time.After(patience):
		w.t.Fatal("a stranger does not get into the network")
	}
	return n
}

// A node that falsely reports no room does not cause a server to be started.
func TestLiarStartsNoServer(t *testing.T) {
	t.Parallel()
	policy := policyWith(t, policy.Default(), policy.Provision{Cooldown: time.Second, WaitTimeout: 2 * time.Second})
	w := upWith(t, testnet.Config{N: 3, Regions: 1, NodeFlags: func(i int) []string {
		flags := []string{"--policy", policy}
		if i == 1 {
			flags = append(flags, "--provision-command", "exit 1")
		}
		return flags
	}})
	liar := w.stranger()
	region := w.region(t)
	need := capacity.Need{Purpose: capacity.View, Stream: "show", Uplink: 2_000_000, Packets: 300}
	var refused *capacity.Refusal
	eventually(t, "it is told that there is room", func() bool {
		_, err := liar.Provisioners.Provision(t.Context(), region, need, "sessions")
		return errors.As(err, &refused) && refused.Reason == scale.ProvisioningRoom
	})
	for range 20 {
		_, err := liar.Provisioners.Provision(t.Context(), region, need, "sessions")
		if !errors.As(err, &refused) || refused.Reason != scale.ProvisioningRoom && refused.Reason != scale.ProvisioningUnknown {
			t.Errorf("asked for a server that nobody needs: %v", err)
		}
	}
	need.Uplink = 1e12
	eventually(t, "a need that nothing meets starts nothing", func() bool {
		_, err := liar.Provisioners.Provision(t.Context(), region, need, "uplink")
		return errors.As(err, &refused) && refused.Reason == scale.ProvisioningWouldNotHelp
	})
	if failed, started := w.metric(t, outcome("failed")), w.metric(t, outcome("started")); failed+started != 0 {
		t.Errorf("the hook ran %v times", failed+started)
	}
}

func (w *world) region(t *testing.T) string {
	var list struct {
		Records []struct{ Record capacity.Record }
	}
	eventually(t, "a record tells the region", func() bool {
		return w.n(1).Get(t.Context(), "/records", &list) == nil && len(list.Records) > 0
	})
	return list.Records[0].Record.Region
}

// One of two nodes is stopped, as on a machine that hangs: the other reports
// what it does not know, for as long as that lasts, and continues when the
// stopped one counts as gone.
func TestStoppedNodeIsSilent(t *testing.T) {
	t.Parallel()
	w := up(t, 2, nil)
	a, b := w.n(1), w.n(2)
	publish(t, b.whip("show"))
	a.finds(t, "show")
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(b.PID, s); err != nil {
			t.Fatal(err)
		}
	}
	defer func() { _ = syscall.Kill(b.PID, syscall.SIGCONT) }()
	hearing := func() (dht.Hearing, error) {
		r := cli(t, "records", "list", "--json", "--admin", a.Admin)
		var list struct{ Hearing dht.Hearing }
		return list.Hearing, json.Unmarshal([]byte(r.out), &list)
	}
	// Once it has been silent for a record's life it counts as gone: a check
	// that took longer is made again.
	stopped := func(check func() error) {
		t.Helper()
		for tries := range 5 {
			signal(syscall.SIGSTOP)
			began := time.Now()
			err := check()
			late := time.Since(began) > capacity.DefaultTTL
			signal(syscall.SIGCONT)
			eventually(t, "both are heard again", func() bool {
				h, err := hearing()
				return err == nil && h.Heard == 2
			})
			switch {
			case err == nil:
				return
			case !late || tries == 4:
				t.Error(err)
				return
			}
		}
	}

	// Only the stopped node knows whether it publishes a stream of that name.
	const silent = "1 of 2 holders did not answer"
	stopped(func() error {
		_, err := tryView(t, a.whep("unheard"))
		var refused *client.Refused
		if !errors.As(err, &refused) || refused.Status != http.StatusServiceUnavailable || !strings.Contains(err.Error(), silent) {
			return fmt.Errorf("a stream that only the stopped one may know of: %w", err)
		}
		return nil
	})
	stopped(func() error {
		if r := cli(t, "records", "list", "--stream", "unheard", "--admin", a.Admin); r.code != noConnection || !strings.Contains(r.errout, silent) {
			return fmt.Errorf("exit code %d, want %d: %s%s", r.code, noConnection, r.out, r.errout)
		}
		return nil
	})
	stopped(func() error {
		h, err := hearing()
		if err != nil || h.Heard != 1 || len(h.Silent) != 1 || h.Silent[0].Node != b.PeerID {
			return fmt.Errorf("--json: heard %+v, %w", h, err)
		}
		return nil
	})

	// The name is not given away on a guess, and other publishers are not
	// blocked for ever.
	signal(syscall.SIGSTOP)
	began := time.Now()
	eventually(t, "a name is free again", func() bool { _, err := tryPublish(t, a.whip("other")); return err == nil })
	t.Logf("a name was given after %v beside a stopped node", time.Since(began).Round(10*time.Millisecond))
}
