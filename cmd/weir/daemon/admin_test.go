package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/cmd/weir/policies"
	"weir/sfu/problem"
)

const trialPolicy = "name: one\nversion: 1\nfilter:\n  - {name: room, expr: r.sessions_free >= 1}\nscore:\n  - {name: headroom, expr: 1 - r.stress}\n"

// startAdmin serves the admin API of a node without a network.
func startAdmin(t *testing.T) (*node, string) {
	t.Helper()
	cfg, err := parse(t, "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media-port", "0", "--log-level", "error")
	if err != nil {
		t.Fatal(err)
	}
	n, err := newNode(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- n.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("run = %v", err)
		}
	})
	server := httptest.NewServer(n.adminHandler())
	t.Cleanup(server.Close)
	return n, server.URL
}

func TestPolicyTryAPI(t *testing.T) {
	n, admin := startAdmin(t)
	bad := strings.Replace(trialPolicy, "r.stress", "r.stres", 1)
	for name, c := range map[string]struct {
		query, body string
		status      int
		says        string
	}{
		"alone":                   {"", trialPolicy, http.StatusOK, `"tried":{"name":"one","version":1}`},
		"with a stream":           {"?stream=demo&uplink=5mbps&region=eu", trialPolicy, http.StatusOK, `"purpose":"cascade","stream":"demo","uplink":5000000,`},
		"a mistake":               {"?file=new.yaml", bad, http.StatusBadRequest, "new.yaml:6:34: term \"headroom\": r and me have no field stres"},
		"no policy":               {"", "", http.StatusBadRequest, "it is empty"},
		"too long":                {"", strings.Repeat("#", policies.MaxFile+1), http.StatusRequestEntityTooLarge, "more than 65536 bytes"},
		"longer than a policy":    {"", trialPolicy + strings.Repeat("#", policies.MaxFile/2), http.StatusBadRequest, "at most"},
		"an uplink without sense": {"?uplink=fast", trialPolicy, http.StatusBadRequest, "5mbps"},
		"a stream that is none":   {"?stream=a//b", trialPolicy, http.StatusBadRequest, "stream"},
	} {
		resp, err := http.Post(admin+"/api/v1/policy/try"+c.query, "", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		_, err = io.Copy(&b, resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		said := problem.Parse(resp.StatusCode, resp.Header.Get("Content-Type"), []byte(b.String())).Detail
		if resp.StatusCode != c.status || !strings.Contains(said, c.says) {
			t.Errorf("%s: %s: %s; want %d and %q", name, resp.Status, &b, c.status, c.says)
		}
	}
	if got := n.policy.Policy().Policy().Name; got != "default" {
		t.Errorf("policy %q is in force after trying others", got)
	}
}

// A node's limits on pulls and on the depth of the tree are those of the policy
// in force at the time, and never more pulls than its own flag allows.
func TestBoundsAreThoseOfThePolicyInForce(t *testing.T) {
	f, err := policies.Open("", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	force := func(fanout, depth int) {
		t.Helper()
		p := policy.Default()
		p.Fanout, p.Depth = fanout, depth
		judge, err := policy.Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		f.Force(judge)
	}
	for _, tt := range []struct {
		name                      string
		flag, fanout, depth       int
		wantedFanout, wantedDepth int
	}{
		{"the policy's", 0, 12, 3, 12, 3},
		{"the node's, if it is the smaller", 5, 12, 3, 5, 3},
		{"the policy's, if it is the smaller", 5, 2, 1, 2, 1},
		{"the node's, where the policy names none", 5, 0, 0, 5, capacity.MaxDepth},
		{"no bound, where nobody names one", 0, 0, 0, 0, capacity.MaxDepth},
	} {
		force(tt.fanout, tt.depth)
		n := &node{policy: f}
		n.tuned.Store(&tunable{fanout: tt.flag})
		if fanout, depth := n.fanout(), n.depth(); fanout != tt.wantedFanout || depth != tt.wantedDepth {
			t.Errorf("%s: fan-out %d and depth %d, want %d and %d", tt.name, fanout, depth, tt.wantedFanout, tt.wantedDepth)
		}
	}
}
