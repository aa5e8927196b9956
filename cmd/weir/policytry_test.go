package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/names"
	"weir/cmd/weir/policies"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/inspect"
)

// The text printed for three nodes with 9, 5 and 1 of 10 sessions free, with
// policyV1 in force.
func TestTrialInWords(t *testing.T) {
	judge := func(text string) *policy.Compiled {
		j, err := policy.Parse("test", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	ids := []peer.ID{peer.ID("a"), peer.ID("b"), peer.ID("c")}
	survey := inspect.Survey{Silent: []peer.ID{"silent"}}
	for i, used := range []int64{1, 5, 9} {
		survey.Candidates = append(survey.Candidates, policy.Candidate{
			Trust: 1, Record: capacity.Record{Node: ids[i], Sessions: capacity.Usage{Used: used, Limit: 10}},
		})
	}
	view := capacity.Need{Purpose: capacity.View}
	cascade := capacity.Need{Purpose: capacity.Cascade, Stream: "demo"}
	surveys := map[dht.Topic]inspect.Survey{dht.CapacityTopic(): survey, dht.StreamTopic("demo"): {}}
	decisions := []dht.Decision{
		{Topic: dht.CapacityTopic(), Need: dht.DecisionNeed(view)},
		{Topic: dht.CapacityTopic(), Need: dht.DecisionNeed(view)},
		{Topic: dht.StreamTopic("other"), Need: dht.DecisionNeed(view)}, // its records were not read
	}
	a, b, c := names.Short(ids[0]), names.Short(ids[1]), names.Short(ids[2])
	for name, tt := range map[string]struct {
		after  string
		says   []string
		nobody bool
	}{
		"nothing changes": {policyV1, []string{
			"view: of 3 nodes 3 pass, as now; the first choice stays " + a + "\n",
			`cascade: no other node carries "demo" now`,
			"of the last 2 placements of this node, a node passes now for 2, would for 2; the first choice would be another for 0",
			"1 holder did not answer in time (" + names.Short("silent") + ")",
			"headroom 0.900",
		}, false},
		"some are rejected": {strings.Replace(policyV1, "free >= 1", "free >= 4", 1), []string{
			"view: of 3 nodes 3 pass now, 2 would; the first choice stays " + a + `; rule "room" rejects 1 more`,
			"3 → -", "rule room",
		}, false},
		"another is first": {strings.Replace(policyV1, "1 - r.stress", "r.stress", 1), []string{
			"the first choice changes from " + a + " to " + c,
			"3 → 1", "0.100 → 0.900", "7 % → 60 %", "the first choice would be another for 2",
		}, false},
		"nobody passes": {strings.Replace(policyV1, "free >= 1", "free > 10", 1), []string{
			"view: of 3 nodes 3 pass now, 0 would; the first choice is " + a + `, and would be NONE; rule "room" rejects 3 more`,
			"a node passes now for 2, would for 0",
			`NO NODE would be chosen for view: 3 nodes are rejected, most by rule "room".`,
			"every client that comes to a full node would be refused, with 503\nand \"room\"",
		}, true},
	} {
		got := policies.Trial(judge(policyV1), judge(tt.after), surveys, []capacity.Need{view, cascade}, decisions)
		var out strings.Builder
		printPolicyTrial(term.Terminal{Writer: &out}, got, names.New(nil))
		for _, s := range tt.says {
			if !strings.Contains(out.String(), s) {
				t.Errorf("%s: it does not say %q:\n%s", name, s, &out)
			}
		}
		if nobody(got.Needs[0]) != tt.nobody || nobody(got.Needs[1]) {
			t.Errorf("%s: nobody passes: %v, %v", name, nobody(got.Needs[0]), nobody(got.Needs[1]))
		}
	}
	back := policies.Trial(judge(strings.Replace(policyV1, "free >= 1", "free > 10", 1)), judge(policyV1), surveys, []capacity.Need{view}, nil)
	if got, want := summary(names.New(nil), back.Needs[0]), `of 3 nodes 0 pass now, 3 would; the first choice would be `+a+`; rule "room" rejects 3 fewer`; got != want {
		t.Errorf("%q, want %q", got, want)
	}

	// Needs with the same outcome at all nodes share a table.
	publish := capacity.Need{Purpose: capacity.Publish}
	both := policies.Trial(judge(policyV1), judge(policyV1), surveys, []capacity.Need{view, publish}, nil)
	var out strings.Builder
	printPolicyTrial(term.Terminal{Writer: &out}, both, names.New(nil))
	if !strings.HasPrefix(out.String(), "view or publish: of 3 nodes") || strings.Count(out.String(), b) != 1 {
		t.Errorf("got\n%s", &out)
	}
}

// The command's output matches the API's, and that of weir policy check.
func TestPolicyTryCommand(t *testing.T) {
	node := startNode(t)
	admin := strings.TrimPrefix(node.Admin, "http://")
	bad := strings.Replace(policyV1, "r.stress", "r.stres", 1)
	dir := t.TempDir()
	file := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	_, code, tried := runWeir(t.Context(), "policy", "try", "--admin", admin, file)
	_, checkCode, checked := runWeir(t.Context(), "policy", "check", file)
	if code != cmdline.ExitInput || code != checkCode || tried == nil || checked == nil || tried.Error() != checked.Error() {
		t.Errorf("try: exit %d, %v\ncheck: exit %d, %v", code, tried, checkCode, checked)
	}
	if err := os.WriteFile(file, []byte(policyV1), 0o600); err != nil {
		t.Fatal(err)
	}
	out, code, err := runWeir(t.Context(), "policy", "try", "--admin", admin, "--fail-if-none", file)
	if err != nil || code != 0 || !strings.Contains(out, "there is no other node") {
		t.Errorf("alone: exit %d, %v: %s", code, err, out)
	}
	out, _, err = runWeir(t.Context(), "policy", "try", "--admin", admin, "--json", file)
	var got api.PolicyTrial
	if err != nil || json.Unmarshal([]byte(out), &got) != nil || len(got.Needs) != 2 || got.Node.String() != node.PeerID {
		t.Errorf("--json: %v: %s", err, out)
	}
	for _, args := range [][]string{{"policy", "try"}, {"policy", "try", "--admin", admin, filepath.Join(dir, "absent")}} {
		if _, code, err := runWeir(t.Context(), args...); code != cmdline.ExitInput {
			t.Errorf("weir %s: exit %d, %v", strings.Join(args, " "), code, err)
		}
	}
}
