package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/policy"
	"weir/dht"
)

// A network's policy changes while it works: the next decision is made by the
// new one, and connected clients are not affected.
func TestPolicyChangesWhileMediaRuns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		tmp := path + ".new"
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(tmp, path); err != nil {
			t.Fatal(err)
		}
	}
	p := policy.Default()
	p.Version = 1
	text, err := p.Text()
	if err != nil {
		t.Fatal(err)
	}
	write(string(text))
	w := up(t, 3, func(i int) []string {
		flags := []string{"--policy", path}
		if i == 1 {
			flags = append(flags, "--session-limit", "2")
		}
		return flags
	})
	full := w.n(1)
	publish(t, full.whip("own"))
	first := view(t, full.whep("own"))
	second := view(t, full.whep("own"))
	if !full.serves(first.NodeURL()) || full.serves(second.NodeURL()) {
		t.Fatalf("viewers are at %s and %s", first.NodeURL(), second.NodeURL())
	}
	flows(t, first, second)

	inForce := func(version uint64) {
		t.Helper()
		eventually(t, "the policy is in force everywhere", func() bool {
			for i := range 3 {
				if ask[policy.Policy](t, w.n(i+1), "/policy").Version != version {
					return false
				}
			}
			return true
		})
	}
	write(strings.NewReplacer("version: 1", "version: 2", `'!r.self'`, `'!r.self'`+"\n    - name: closed-today\n      expr: q.purpose != \"publish\"").Replace(string(text)))
	inForce(2)
	r := refusal(t, func() error { _, err := tryPublish(t, full.whip("other")); return err }())
	if r.Status != http.StatusServiceUnavailable || !strings.Contains(r.Error(), "closed-today") {
		t.Errorf("a publisher is refused with %v", r)
	}
	flows(t, first, second)

	write("nonsense")
	eventually(t, "the mistake is logged", func() bool {
		b, err := os.ReadFile(full.Log)
		return err == nil && strings.Contains(string(b), "policy not applied")
	})
	write(strings.Replace(string(text), "version: 1", "version: 3", 1))
	inForce(3)
	if p := publish(t, full.whip("other")); full.serves(p.NodeURL()) {
		t.Error("the full node took a publisher")
	}
	flows(t, first, second)
	continuous(t, first)
	continuous(t, second)
}

// The operator signs a policy and pushes it to one node: all have it soon, a
// node that was down gets it when it is back, and viewers are not affected.
func TestOperatorPushesPolicies(t *testing.T) {
	dir := t.TempDir()
	keys, file := filepath.Join(dir, "operator"), filepath.Join(dir, "policy.yaml")
	var key struct{ Operator string }
	weirJSON(t, &key, "policy", "key", "--json", keys)
	w := up(t, 4, func(int) []string { return []string{"--operator", key.Operator} })
	first, down := w.n(1), w.n(4)
	publish(t, first.whip("demo"))
	w.n(2).finds(t, "demo")
	v := view(t, w.n(2).whep("demo"))
	flows(t, v)

	text, err := policy.Default().Text()
	if err != nil {
		t.Fatal(err)
	}
	push := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var applied struct{ Version uint64 }
		weirJSON(t, &applied, "policy", "push", "--json", "--key", keys, "--admin", first.Admin, file)
	}
	have := func(version uint64, nodes ...node) {
		t.Helper()
		within(t, 2*time.Second, "all have the policy", func() bool {
			for _, n := range nodes {
				if ask[policy.Policy](t, n, "/policy").Version != version {
					return false
				}
			}
			return true
		})
	}
	push(string(text))
	have(1, first, w.n(2), w.n(3), down)
	if err := w.Kill(down.Name); err != nil {
		t.Fatal(err)
	}
	push(strings.Replace(string(text), "name: default", "name: second", 1))
	have(2, first, w.n(2), w.n(3))
	push(string(text)) // back to the first, under a new version
	have(3, first, w.n(2), w.n(3))
	if err := w.Restart(t.Context(), down.Name); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node that was down catches up", func() bool {
		return ask[policy.Policy](t, w.n(4), "/policy").Version == 3
	})
	// It has stored the policy: it does not need the others.
	if err := w.Restart(t.Context(), down.Name); err != nil {
		t.Fatal(err)
	}
	if got := ask[policy.Policy](t, w.n(4), "/policy"); got.Version != 3 || got.Name != "default" {
		t.Errorf("after a restart, %q version %d", got.Name, got.Version)
	}
	var history []struct {
		Version uint64
		Name    string
		InForce bool `json:"in_force"`
	}
	weirJSON(t, &history, "policy", "history", "--json", "--admin", first.Admin)
	if len(history) != 3 || history[0].Version != 3 || !history[0].InForce || history[1].Name != "second" {
		t.Errorf("history %+v", history)
	}
	flows(t, v)
	continuous(t, v)

	// A foreign operator's policy is refused, with the reason.
	var stranger struct{ Operator string }
	weirJSON(t, &stranger, "policy", "key", "--json", filepath.Join(dir, "stranger"))
	if r := cli(t, "policy", "push", "--key", filepath.Join(dir, "stranger"), "--admin", first.Admin, file); r.code == ok || !strings.Contains(r.errout, "signed by "+stranger.Operator) {
		t.Errorf("a stranger's policy: exit %d: %s", r.code, r.errout)
	}
	have(3, first)
}

// weirJSON runs the command and decodes its output.
func weirJSON(t *testing.T, v any, args ...string) {
	t.Helper()
	r := cli(t, args...)
	if r.code != ok {
		t.Fatalf("weir %s: exit %d: %s", strings.Join(args, " "), r.code, r.errout)
	}
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		t.Fatalf("weir %s: %v: %s", strings.Join(args, " "), err, r.out)
	}
}

// The changes that weir policy try predicts are those that happen when the
// policy is pushed; until then nothing changes.
func TestTriedPolicyChangesWhatItSaid(t *testing.T) {
	dir := t.TempDir()
	keys, file := filepath.Join(dir, "operator"), filepath.Join(dir, "policy.yaml")
	var key struct{ Operator string }
	weirJSON(t, &key, "policy", "key", "--json", keys)
	w := up(t, 4, func(i int) []string {
		flags := []string{"--operator", key.Operator, "--zone", fmt.Sprintf("z%d", i)}
		if i == 1 {
			flags = append(flags, "--session-limit", "2")
		}
		return flags
	})
	full, wanted := w.n(1), w.n(3)
	first := fill(t, full, "demo")
	w.see(t)

	type trial struct {
		Needs []struct {
			Need struct{ Purpose string }
			policy.Comparison
		}
		Recent struct{ Placements, Before, After int }
	}
	try := func(rule, expr string) (trial, string) {
		t.Helper()
		p := policy.Default()
		p.Name = rule
		p.Filter = append(p.Filter, policy.Rule{Name: rule, Expr: expr})
		text, err := p.Text()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		var got trial
		weirJSON(t, &got, "policy", "try", "--json", "--admin", full.Admin, file)
		if len(got.Needs) != 2 || got.Needs[1].Need.Purpose != "publish" {
			t.Fatalf("tried %+v", got)
		}
		return got, reads(t, "policy", "try", "--admin", full.Admin, file)
	}
	push := func() {
		t.Helper()
		var applied struct{ Version uint64 }
		weirJSON(t, &applied, "policy", "push", "--json", "--key", keys, "--admin", full.Admin, file)
	}
	// chosen makes the full node choose, and returns the rules that reject.
	chosen := func() map[peer.ID]string {
		t.Helper()
		rules := map[peer.ID]string{}
		var d dht.Decision
		weirJSON(t, &d, "select", "--json", "--purpose", "publish", "--need", "64kbps", "--admin", full.Admin)
		for _, v := range d.Verdicts {
			rules[v.Node] = v.Rule
		}
		return rules
	}
	said := func(got trial, standing func(policy.Compared) policy.Standing) map[peer.ID]string {
		rules := map[peer.ID]string{}
		for _, n := range got.Needs[1].Nodes {
			rules[n.Node] = standing(n).Rule
		}
		return rules
	}
	before := func(c policy.Compared) policy.Standing { return c.Before }
	after := func(c policy.Compared) policy.Standing { return c.After }

	// Only one node is accepted, and a publisher is redirected to it.
	got, out := try("zone", `r.zone == "z3"`)
	publishing := got.Needs[1]
	if publishing.Before.Passed != 3 || publishing.After.Passed != 1 || publishing.After.First != wanted.PeerID || publishing.After.Rejected["zone"] != 2 {
		t.Errorf("tried: %+v", publishing)
	}
	says(t, out, "of 3 nodes 3 pass now, 1 would; the first choice", `rule "zone" rejects 2 more`, "→ 100 %", "nothing is applied")
	if p := ask[policy.Policy](t, full, "/policy"); p.Version != 0 {
		t.Errorf("after trying it, policy %q version %d is in force", p.Name, p.Version)
	}
	if now, want := chosen(), said(got, before); !maps.Equal(now, want) {
		t.Errorf("before the push it was said that rules reject %v, and they reject %v", want, now)
	}
	push()
	if now, want := chosen(), said(got, after); !maps.Equal(now, want) {
		t.Errorf("it was said that rules would reject %v, and they reject %v", want, now)
	}
	if p := publish(t, full.whip("second")); !wanted.serves(p.NodeURL()) {
		t.Errorf("a publisher was sent to %s, want %s", p.NodeURL(), wanted.HTTP)
	}

	// No node would be accepted: this is reported prominently, and correct.
	got, out = try("closed-today", `q.purpose == "cascade"`)
	if got.Needs[1].After.Passed != 0 || got.Recent.Placements == 0 || got.Recent.Before == 0 || got.Recent.After != 0 {
		t.Errorf("tried: %+v", got)
	}
	says(t, out, "NO NODE would be chosen for view or publish", `"closed-today"`, "503")
	if r := cli(t, "policy", "try", "--fail-if-none", "--admin", full.Admin, file); r.code != failure {
		t.Errorf("--fail-if-none: exit %d", r.code)
	}
	push()
	r := refusal(t, func() error { _, err := tryPublish(t, full.whip("third")); return err }())
	if r.Status != http.StatusServiceUnavailable || !strings.Contains(r.Error(), "closed-today") {
		t.Errorf("a publisher is refused with %v", r)
	}
	flows(t, first)
}
