package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/capacity"
	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/sfu"
	"weir/sfu/problem"
)

// startWithConfig runs a node with its configuration in a file; write replaces
// the file, as editors do.
func startWithConfig(t *testing.T, text string) (n *node, admin string, write func(text string)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir.yaml")
	write = func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write(text)
	l, err := Sources{Args: []string{"--config", path, "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media-port", "0", "--listen", "/ip4/127.0.0.1/tcp/0"}}.Load()
	if err != nil {
		t.Fatal(err)
	}
	if n, err = newNode(l.cfg); err != nil {
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
	return n, server.URL, write
}

// lastEvent is the newest event of one of the kinds.
func lastEvent(n *node, kinds ...event.Kind) (e event.Event) {
	for _, one := range n.events.Kept() {
		if slices.Contains(kinds, one.Kind) {
			e = one
		}
	}
	return e
}

// Every live setting changes without a restart, and takes effect.
func TestReloadAppliesWhatIsLive(t *testing.T) {
	policy := writeFile(t, "policy.yaml", trialPolicy)
	n, _, write := startWithConfig(t, "log-level: error\n")
	if n.cfg.log.Enabled(t.Context(), slog.LevelDebug) {
		t.Error("it begins with debug")
	}
	write(`session-limit: 1
address-sessions: 4
stream-limit: 2
uplink-limit: 30mbps
packet-limit: 4000
cpu-limit: 0.5
delay-limit: 80ms
fanout: 3
overflow: refuse
linger: 7s
stop-timeout: 8s
log-level: warn
policy: ` + policy + "\n")
	report, err := n.reloading.reload()
	if err != nil || report.Outcome != api.ReloadApplied || len(report.Restart) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	want := slices.Sorted(slices.Values(LiveSettings))
	if got := slices.Sorted(slices.Values(report.Changed)); !slices.Equal(got, want) {
		t.Errorf("changed %q, want %q", got, want)
	}
	limits := n.ledger.Totals(time.Now()).Limits
	if limits.Sessions != 1 || limits.Streams != 2 || limits.Uplink != 30_000_000 || limits.Packets != 4000 {
		t.Errorf("the ledger has %+v", limits)
	}
	if n.fanout() != 3 || n.status().Overflow != sfu.Refuse || n.tuned.Load().perClient != 4 || n.tuned.Load().linger != 7*time.Second || n.tuned.Load().stopTimeout != 8*time.Second {
		t.Errorf("got %+v", *n.tuned.Load())
	}
	if !n.cfg.log.Enabled(t.Context(), slog.LevelWarn) || n.cfg.log.Enabled(t.Context(), slog.LevelInfo) {
		t.Error("the log does not go by warn")
	}
	if n.policy.Policy().Policy().Name != "one" {
		t.Errorf("policy %q is in force", n.policy.Policy().Policy().Name)
	}
	for end := time.Now().Add(30 * time.Second); n.gauge.Read().CPULimit != 0.5 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond) // until its next sample
	}
	if got := n.gauge.Read().CPULimit; got != 0.5 {
		t.Errorf("the gauge goes by %v of the CPU", got)
	}
	e := lastEvent(n, event.ConfigReloaded)
	if !strings.Contains(e.Detail, "session-limit") {
		t.Errorf("the event is %+v", e)
	}

	// And back, which also removes the policy.
	write("log-level: error\n")
	if report, err = n.reloading.reload(); err != nil || n.ledger.Totals(time.Now()).Limits.Sessions != 500 || n.policy.Policy().Policy().Name != "default" || n.tuned.Load().overflow != sfu.Redirect {
		t.Errorf("back: %+v, %v", report, err)
	}
	if report, err = n.reloading.reload(); err != nil || len(report.Changed) > 0 || report.String() != "no setting has changed" {
		t.Errorf("once more: %+v, %v", report, err)
	}
}

// A file with one mistake changes nothing and is reported in every way; a
// correct one clears the reports.
func TestReloadOfABadFileAppliesNothing(t *testing.T) {
	n, admin, write := startWithConfig(t, "session-limit: 5\n")
	value := func(name string) float64 {
		t.Helper()
		families, err := registryOf(n).Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == name {
				return f.Metric[0].GetGauge().GetValue()
			}
		}
		t.Fatalf("no metric %s", name)
		return 0
	}
	if value("weir_config_last_reload_successful") != 1 {
		t.Error("not successful at the start")
	}
	before := *n.tuned.Load()
	for name, text := range map[string]string{
		"a key": "session-limit: 6\nsesion-limit: 7\n", "a unit": "session-limit: 6\nlinger: 3\n", "a check of the node's": "session-limit: 6\noverflow: spill\n",
		"YAML": "session-limit: 6\nregion: [\n", "a policy that is not there": "session-limit: 6\npolicy: /nowhere\n",
	} {
		write(text)
		report, err := n.reloading.reload()
		if err == nil || report.Outcome != api.ReloadRefused || !strings.Contains(report.String(), "weir.yaml:2:") {
			t.Errorf("%s: %+v, %v", name, report, err)
		}
		if got := *n.tuned.Load(); got != before || n.ledger.Totals(time.Now()).Limits.Sessions != 5 {
			t.Errorf("%s: %+v is in force", name, got)
		}
		if e := lastEvent(n, event.ConfigRefused, event.ConfigReloaded); e.Kind != event.ConfigRefused || !strings.Contains(e.Detail, "weir.yaml:2:") {
			t.Errorf("%s: the event is %+v", name, e)
		}
	}
	if value("weir_config_last_reload_successful") != 0 {
		t.Error("successful after all")
	}
	if problems, err := testutil.GatherAndLint(registryOf(n)); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	resp, err := http.Post(admin+"/api/v1/reload", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	said := problem.Read(resp)
	resp.Body.Close()
	if said.Code != problem.BadConfig || !strings.Contains(said.Detail, "weir.yaml:2:") {
		t.Errorf("the API says %+v", said)
	}
	write("session-limit: 6\n")
	if resp, err = http.Post(admin+"/api/v1/reload", "", nil); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if n.ledger.Totals(time.Now()).Limits.Sessions != 6 || value("weir_config_last_reload_successful") != 1 {
		t.Error("a good file is not in force")
	}
}

// Settings that need a restart are named, stay in force, and are shown as
// pending until they are changed back; live ones beside them change.
func TestReloadNamesWhatNeedsARestart(t *testing.T) {
	n, admin, write := startWithConfig(t, "region: eu\nsession-limit: 5\n")
	write("region: us\nsession-limit: 6\nhttp: 127.0.0.1:1\nprovision-url: https://me:s3cret@example.org/\n")
	report, err := n.reloading.reload()
	if err != nil || !slices.Equal(report.Restart, []string{"region", "provision-url"}) || !slices.Equal(report.Changed, []string{"session-limit"}) {
		t.Errorf("%+v, %v; --http is on the command line, and stronger", report, err)
	}
	if e := lastEvent(n, event.ConfigReloaded); e.Detail != "changed: session-limit; needs a restart: region, provision-url" {
		t.Errorf("the event is %+v", e)
	}
	if record, _ := n.sample(); record.Region != "eu" {
		t.Errorf("its record says %q", record.Region)
	}
	show := func() (c api.Config) {
		t.Helper()
		resp, err := http.Get(admin + "/api/v1/config")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if err := json.NewDecoder(resp.Body).Decode(&c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	of := func(c api.Config, name string) api.Setting {
		return c.Settings[slices.IndexFunc(c.Settings, func(s api.Setting) bool { return s.Name == name })]
	}
	c := show()
	if s := of(c, "region"); !slices.Equal(s.Values, []string{"eu"}) || !slices.Equal(s.Pending, []string{"us"}) {
		t.Errorf("region is shown as %+v", s)
	}
	if s := of(c, "provision-url"); !slices.Equal(s.Pending, []string{"https://…@example.org/"}) {
		t.Errorf("a secret is shown: %+v", s)
	}
	if s := of(c, "session-limit"); !slices.Equal(s.Values, []string{"6"}) || !strings.HasSuffix(s.Where, "weir.yaml:2") {
		t.Errorf("session-limit is shown as %+v", s)
	}
	write("region: eu\nsession-limit: 6\n")
	if report, err = n.reloading.reload(); err != nil || len(report.Restart)+len(report.Changed) > 0 {
		t.Errorf("taken back: %+v, %v", report, err)
	}
	if s := of(show(), "region"); s.Pending != nil {
		t.Errorf("region is shown as %+v", s)
	}
}

// Limits below the current usage end no session: they only stop new ones.
func TestReloadBelowWhatIsInUse(t *testing.T) {
	n, _, write := startWithConfig(t, "session-limit: 5\n")
	now := time.Now()
	for _, id := range []string{"a", "b", "c"} {
		if err := n.ledger.Admit(now, id, capacity.Need{Purpose: capacity.View, Stream: "demo"}); err != nil {
			t.Fatal(err)
		}
	}
	write("session-limit: 2\n")
	if _, err := n.reloading.reload(); err != nil {
		t.Fatal(err)
	}
	totals := n.ledger.Totals(time.Now())
	if totals.Sessions != 3 || totals.State != capacity.Full {
		t.Errorf("%d sessions, %v; want 3, full", totals.Sessions, totals.State)
	}
	if err := n.ledger.Admit(time.Now(), "d", capacity.Need{Purpose: capacity.View, Stream: "demo"}); err == nil || !strings.Contains(err.Error(), "3 of 2 sessions") {
		t.Errorf("a fourth one: %v", err)
	}
	write("session-limit: 0\n")
	if _, err := n.reloading.reload(); err != nil {
		t.Fatal(err)
	}
	if err := n.ledger.Admit(time.Now(), "d", capacity.Need{Purpose: capacity.View, Stream: "demo"}); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

// A file behind a chain of symlinks, as in Kubernetes, is read at its current
// target; concurrent reloads do no harm.
func TestReloadThroughLinks(t *testing.T) {
	dir := t.TempDir()
	for name, limit := range map[string]string{"v1": "5", "v2": "6"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, "weir.yaml"), []byte("session-limit: "+limit+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to string) {
		t.Helper()
		if err := errors.Join(os.Symlink(to, filepath.Join(dir, "..new")), os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	link("v1")
	path := filepath.Join(dir, "weir.yaml")
	if err := os.Symlink("..data/weir.yaml", path); err != nil {
		t.Fatal(err)
	}
	s := Sources{Args: []string{"--config", path}}
	limit := func() int {
		t.Helper()
		l, err := s.Load()
		if err != nil {
			t.Fatal(err)
		}
		return l.cfg.live.limits.Sessions
	}
	if got := limit(); got != 5 {
		t.Errorf("limit %d", got)
	}
	link("v2")
	if got := limit(); got != 6 {
		t.Errorf("limit %d after the link was moved", got)
	}

	n, _, write := startWithConfig(t, "session-limit: 5\n")
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for range 5 {
				if i == 0 {
					_ = n.status()
					_ = n.reloading.reply()
				} else if _, err := n.reloading.reload(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	write("session-limit: 9\n")
	if _, err := n.reloading.reload(); err != nil || n.ledger.Totals(time.Now()).Limits.Sessions != 9 {
		t.Errorf("the last one is not in force: %v", err)
	}
}

// A part whose own file is invalid is named, and the rest is in force.
func TestReloadOfAPartThatFails(t *testing.T) {
	n, _, write := startWithConfig(t, "session-limit: 5\n")
	n.reloading.parts = append(n.reloading.parts, reloadable{"tls-cert", func() error { return errors.New("the pair does not match") }})
	write("session-limit: 6\n")
	report, err := n.reloading.reload()
	if err == nil || report.Outcome != api.ReloadFailed || !strings.Contains(report.String(), "tls-cert not taken, what it said before stays in force: the pair does not match") {
		t.Errorf("%+v, %v", report, err)
	}
	if n.ledger.Totals(time.Now()).Limits.Sessions != 6 {
		t.Error("the limit is not in force")
	}
}
