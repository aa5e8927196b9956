package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"weir/testnet/printed"
)

const deployed = "../../cmd/weir/deploy/"

// promtool accepts the rules, and each alert fires when it should.
func TestAlertRules(t *testing.T) {
	for _, args := range [][]string{{"check", "rules", "--lint-fatal", "prometheus-rules.yaml"}, {"test", "rules", "prometheus-rules.test.yaml"}} {
		check := exec.Command("promtool", args...)
		check.Dir = deployed
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// The guide's Prometheus configuration is valid, and its targets are served by
// the guide's node; the other commands of its sections have existing flags.
func TestGuideToMetrics(t *testing.T) {
	text, err := os.ReadFile("../../.github/docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	section := func(name string) string {
		_, after, ok := strings.Cut(string(text), "\n## "+name+"\n")
		if !ok {
			t.Fatalf("operating.md has no section %q", name)
		}
		section, _, _ := strings.Cut(after, "\n## ")
		return section
	}
	metrics := section("Metrics and alerts")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	shell, err := printed.NewShell(weir, root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shell.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()

	_, config, _ := strings.Cut(metrics, "```yaml\n")
	config, _, _ = strings.Cut(config, "```")
	target := regexp.MustCompile(`targets: \["([^"]+)"\]`).FindStringSubmatch(config)
	if target == nil {
		t.Fatalf("the guide's configuration is %q", config)
	}
	dir := t.TempDir()
	rules, err := os.ReadFile(deployed + "prometheus-rules.yaml")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "prometheus-rules.yaml"), rules, 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("promtool", "check", "config", filepath.Join(dir, "prometheus.yml")).CombinedOutput(); err != nil {
		t.Errorf("promtool check config: %v\n%s", err, out)
	}
	job, err := shell.Start(find(t, printed.Lines(metrics), "bin/weir node") + " --data-dir " + t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = job.Stop() })
	if err := job.Await(ctx, "node is ready"); err != nil {
		t.Fatal(err)
	}
	if out, err := shell.Run(ctx, "curl --silent --fail http://"+target[1]+"/metrics"); err != nil || !strings.Contains(out, "weir_stress_ratio") {
		t.Errorf("the metrics are not at %s: %v\n%s", target[1], err, out)
	}
	if err := job.Stop(); err != nil {
		t.Error(err)
	}

	lines := printed.Spans(section("Sizing") + section("Troubleshooting by symptom") + metrics)
	if len(lines) < 15 {
		t.Fatalf("the sections have the commands %q only", lines)
	}
	for _, line := range lines {
		checkFlags(t, shell, ctx, strings.TrimSuffix(line, " NAME"))
	}
}

// A query is a PromQL expression of the dashboard or an alert.
type query struct{ of, expr string }

// queries are those of the dashboard, with its variables matching everything,
// and of the alerts.
func queries(t *testing.T) (dashboard, alerts []query) {
	t.Helper()
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Annotations struct{ List []struct{ Name, Expr string } }
	}
	text, err := os.ReadFile(deployed + "grafana.json")
	if err == nil {
		err = json.Unmarshal(text, &board)
	}
	if err != nil {
		t.Fatal(err)
	}
	everything := strings.NewReplacer("$job", ".*", "$instance", ".*", "$__rate_interval", "30s")
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			dashboard = append(dashboard, query{p.Title, everything.Replace(target.Expr)})
		}
	}
	for _, a := range board.Annotations.List {
		dashboard = append(dashboard, query{a.Name, everything.Replace(a.Expr)})
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Alert, Expr string }
		}
	}
	text, err = os.ReadFile(deployed + "prometheus-rules.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, &rules)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			alerts = append(alerts, query{r.Alert, r.Expr})
		}
	}
	if len(dashboard) < 40 || len(alerts) < 10 {
		t.Fatalf("found %d and %d queries only", len(dashboard), len(alerts))
	}
	return dashboard, alerts
}

// mayBeEmpty are names in queries that show nothing in a healthy network: this
// test gives them no data.
var mayBeEmpty = []string{"changes(weir_start_time_seconds", "weir_addresses_refused_total"}

// shownBy are the tests that see metrics of faults that this test does not cause.
var shownBy = map[string]string{
	"weir_addresses_refused_total":                  "stranger_test.go",
	"weir_tls_certificate_expiry_timestamp_seconds": "tls_test.go",
	"weir_tls_certificate_failures_total":           "tls_test.go",
}

// Debian's Prometheus scrapes real nodes with media, a redirect, a refusal and
// a cascade link: it loads the rules, answers every query of the dashboard, and
// knows every metric and label value that the dashboard and the alerts name.
func TestPrometheusAnswersTheDashboard(t *testing.T) {
	server, err := exec.LookPath("prometheus")
	if err != nil {
		t.Fatal("prometheus is not installed: testnet/deps.sh prometheus")
	}
	w := up(t, 2, func(i int) []string { return []string{"--session-limit", fmt.Sprint(5 - 2*i)} }) // 3 and 1
	a, b := w.n(1), w.n(2)
	w.see(t)
	publish(t, a.whip("demo"))
	b.finds(t, "demo")

	dir := t.TempDir()
	rules, err := filepath.Abs(deployed + "prometheus-rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\nrule_files: [%q]\nscrape_configs:\n  - {job_name: weir, static_configs: [{targets: [%q, %q]}]}\n",
		rules, strings.TrimPrefix(a.Admin, "http://"), strings.TrimPrefix(b.Admin, "http://"))
	if err := os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + port(t, freePort(t))
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	ctx, cancel := context.WithCancel(context.Background())
	run := exec.CommandContext(ctx, server, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	run.Dir, run.Stdout, run.Stderr = dir, log, log
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) }
	run.WaitDelay = 10 * time.Second
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = run.Wait()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("prometheus says:\n%s", text[max(0, len(text)-2000):])
		}
	})
	type sample struct {
		Metric map[string]string
		Value  [2]any
	}
	get := func(path string, v any) error {
		resp, err := web.Get("http://" + address + "/api/v1/" + path)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%s: %s", resp.Status, text)
		}
		if err == nil {
			err = json.Unmarshal(text, v)
		}
		return err
	}
	ask := func(expr string) ([]sample, error) {
		var answer struct{ Data struct{ Result []sample } }
		err := get("query?query="+url.QueryEscape(expr), &answer)
		return answer.Data.Result, err
	}
	eventually(t, "both nodes are scraped", func() bool {
		list, err := ask("up == 1")
		return err == nil && len(list) == 2
	})

	// All events shown by the panels happen between two scrapes.
	b.post(t, b.whep("nothing"), viewerOffer(t)) // 409
	local, other := view(t, a.whep("demo")), view(t, b.whep("demo"))
	third := view(t, a.whep("demo"))
	flows(t, local, other, third)
	if _, err := tryPublish(t, a.whip("more")); refusal(t, err).Status != http.StatusServiceUnavailable {
		t.Fatalf("got %v", err)
	}
	eventually(t, "a round trip was taken", func() bool { return b.metric(t, "weir_link_round_trip_seconds_count") > 0 })

	dashboard, alerts := queries(t)
	for _, q := range dashboard {
		var list []sample
		var err error
		answered := func() bool {
			list, err = ask(q.expr)
			return err != nil || len(list) > 0 || slices.ContainsFunc(mayBeEmpty, func(part string) bool { return strings.Contains(q.expr, part) })
		}
		eventually(t, fmt.Sprintf("%q has something to show: %s", q.of, q.expr), answered)
		if err != nil {
			t.Errorf("%q: %s: %v", q.of, q.expr, err)
		}
	}

	// Names in panels without data may be misspelt: check the metrics, and the
	// label values in queries.
	names := regexp.MustCompile(`\b((?:weir|process|go)_[a-z_]+|up)\b(?:\{([^}]*)\})?`)
	matcher := regexp.MustCompile(`([a-z_]+)(=~?)"([^"]*)"`)
	exposed := map[string]map[string][]string{}
	for _, q := range slices.Concat(dashboard, alerts) {
		for _, m := range names.FindAllStringSubmatch(q.expr, -1) {
			name := m[1]
			if file := shownBy[name]; file != "" {
				if text, err := os.ReadFile(file); err != nil || !regexp.MustCompile(name+"[{\"]").Match(text) {
					t.Errorf("%s does not show %s any more (%v)", file, name, err)
				}
				continue
			}
			if exposed[name] == nil {
				list, err := ask(name)
				if err != nil || len(list) == 0 {
					t.Errorf("%q names %s, which no node exposes (%v)", q.of, name, err)
				}
				exposed[name] = map[string][]string{}
				for _, s := range list {
					for label, value := range s.Metric {
						exposed[name][label] = append(exposed[name][label], value)
					}
				}
			}
			for _, label := range matcher.FindAllStringSubmatch(m[2], -1) {
				values := exposed[name][label[1]]
				want := regexp.MustCompile("^(?:" + label[3] + ")$")
				if values == nil || !slices.ContainsFunc(values, want.MatchString) && !slices.Contains(rare, name+" "+label[1]+" "+label[3]) {
					t.Errorf("%q asks for %s of %s, which has %v", q.of, label[0], name, values)
				}
			}
		}
		for _, by := range regexp.MustCompile(`by \(([a-z, _]+)\) \((?:rate|increase)\((weir_[a-z_]+)`).FindAllStringSubmatch(q.expr, -1) {
			for label := range strings.SplitSeq(by[1], ", ") {
				if shownBy[by[2]] == "" && exposed[by[2]][label] == nil {
					t.Errorf("%q groups %s by %s, which it has not", q.of, by[2], label)
				}
			}
		}
	}

	// The operator's guide has all existing metrics, and no others.
	guide, err := os.ReadFile("../../.github/docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ Data []string }
	if err := get("label/__name__/values", &all); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("../../cmd/weir/*.go")
	if err != nil {
		t.Fatal(err)
	}
	below, err := filepath.Glob("../../cmd/weir/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, below...)
	source := ""
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		source += string(text)
	}
	there := map[string]bool{}
	for _, name := range all.Data {
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			name = strings.TrimSuffix(name, suffix)
		}
		if there[name] = true; strings.HasPrefix(name, "weir_") && !strings.Contains(string(guide), "\n| `"+name+"` |") {
			t.Errorf("operating.md does not say what %s is", name)
		}
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(weir_[a-z_]+)` \\|").FindAllStringSubmatch(string(guide), -1) {
		// Some metrics exist only with a flag that these nodes do not have.
		if name := m[1]; !there[name] && !strings.Contains(source, `"`+name+`"`) && !strings.Contains(source, `"`+strings.TrimPrefix(name, "weir_")+`"`) {
			t.Errorf("operating.md names %s, which no node exposes", name)
		}
	}

	var loaded struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	eventually(t, "all rules have been evaluated", func() bool {
		if err := get("rules", &loaded); err != nil || len(loaded.Data.Groups) == 0 {
			return false
		}
		return !slices.ContainsFunc(loaded.Data.Groups[0].Rules, func(r struct{ Name, Health, LastError string }) bool { return r.Health == "unknown" })
	})
	for _, r := range loaded.Data.Groups[0].Rules {
		if r.Health != "ok" {
			t.Errorf("alert %s: %s: %s", r.Name, r.Health, r.LastError)
		}
	}
}

// rare are label values that occur only after a fault that this test does not
// cause: they are in the help text of their metric.
var rare = []string{"weir_placements_total outcome not_known|failed"}
