package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/testnet/printed"
)

// goesOn are the commands that run until they are interrupted, with their
// output once they work.
var goesOn = []struct{ begins, says string }{
	{"weir node", "node is ready"},
	{"weir publish", "kbit/s"},
	{"weir view", "kbit/s"},
	{"weir events --follow", "node is ready"},
	{"weir records watch", "that is all there is"},
}

// notRun are commands that take too long for a test, or repeat another one;
// their flags are checked nevertheless.
var notRun = []struct{ begins, why string }{
	{"make ", "it builds, tests or runs what this test does as well; that the target is there is checked"},
	{"weir testnet demo", "testnet's own test runs it"},
	{"weir top", "wants a terminal; cmd/weir's tests look at its screen"},
}

// Every command in the README, in help and in the output of commands must run
// unchanged.
func TestPrintedCommandsRun(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	scratch := t.TempDir()
	shell, err := printed.NewShell(weir, root, scratch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shell.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	run := func(line string) string {
		t.Helper()
		out, err := shell.Run(ctx, line)
		if err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
		return out
	}
	start := func(line, says string) *printed.Job {
		t.Helper()
		job, err := shell.Start(strings.ReplaceAll(line, "bin/weir", "weir"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = job.Stop() })
		if err := job.Await(ctx, says); err != nil {
			t.Error(err)
		}
		return job
	}

	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	placement, err := os.ReadFile(filepath.Join(root, ".github/docs/placement.md"))
	if err != nil {
		t.Fatal(err)
	}
	readme = append(readme, placement...)
	lines := printed.Lines(string(readme))
	all := append(slices.Clone(lines), printed.Spans(string(readme))...)
	for _, path := range append(commandPaths(t), "") {
		all = append(all, printed.Lines(helpOf(t, path))...)
	}
	if len(lines) < 8 || len(all) < 35 {
		t.Fatalf("found %d and %d commands only: %q", len(lines), len(all), all)
	}

	t.Logf("the commands are %s", strings.Join(all, "; "))
	// The first node of the README, and the second with the ID of the first.
	first := find(t, lines, "bin/weir node --dev")
	dev := start(first, "node is ready")
	id := regexp.MustCompile(`peer=(12D3\w+)`).FindStringSubmatch(dev.Output())
	if id == nil {
		t.Fatalf("the node tells no peer ID: %s", dev.Output())
	}
	second := start(strings.ReplaceAll(strings.ReplaceAll(find(t, lines, "bin/weir node --http"), "12D3…", id[1]), "/tmp/second", scratch+"/second"), "node is ready")
	publish := start(find(t, lines, "bin/weir publish"), "kbit/s")
	view := start(find(t, lines, "bin/weir view"), "kbit/s")

	// The commands shown by the first node's console; the node has logged its URL.
	console := regexp.MustCompile(`console=(http://\S+)`).FindStringSubmatch(dev.Output())
	if console == nil {
		t.Fatalf("the node tells no console: %s", dev.Output())
	}
	var shown struct {
		Commands struct{ Status, Join string }
	}
	err = json.Unmarshal([]byte(run("curl --silent --fail "+console[1]+"/console/state")), &shown)
	if err != nil || shown.Commands.Status == "" || shown.Commands.Join == "" {
		t.Fatalf("the console shows the commands %+v, %v", shown, err)
	}
	run(shown.Commands.Status)
	third := start(strings.ReplaceAll(shown.Commands.Join, "--data-dir weir-second", "--data-dir "+scratch+"/third"), "node is ready")
	if out := third.Output(); strings.Contains(out, "alone") {
		t.Errorf("%s: %s", shown.Commands.Join, out)
	}
	if err := third.Stop(); err != nil {
		t.Error(err)
	}

	done := []string{first, find(t, lines, "bin/weir node --http"), find(t, lines, "bin/weir publish"), find(t, lines, "bin/weir view")}
	var last []string // commands that end something
	for _, line := range all {
		line = strings.TrimPrefix(line, "bin/")
		if slices.Contains(done, line) || slices.Contains(done, "bin/"+line) {
			continue
		}
		done = append(done, line)
		switch {
		case strings.HasPrefix(line, "make "):
			checkTarget(t, root, line)
		case strings.HasPrefix(line, "source "):
			run(line)
		case strings.HasPrefix(line, "weir testnet up"):
			t.Run(line, func(t *testing.T) { runTestnet(t, ctx, shell, line, scratch) })
		case strings.HasPrefix(line, "weir sessions end"), strings.HasPrefix(line, "weir streams end"), strings.HasPrefix(line, "weir drain"):
			last = append(last, line)
		case slices.ContainsFunc(notRun, func(n struct{ begins, why string }) bool { return strings.HasPrefix(line, n.begins) }):
			checkFlags(t, shell, ctx, line)
		case needs(line):
			checkFlags(t, shell, ctx, line) // it has a placeholder for the reader
		default:
			if i := slices.IndexFunc(goesOn, func(g struct{ begins, says string }) bool { return strings.HasPrefix(line, g.begins) }); i >= 0 {
				if strings.HasPrefix(line, "weir node") {
					line += " --data-dir " + t.TempDir()
				}
				if err := start(strings.ReplaceAll(line, "…", ""), goesOn[i].says).Stop(); err != nil {
					t.Error(err)
				}
				continue
			}
			run(strings.ReplaceAll(line, "PEER", id2(t, ctx, shell)))
		}
	}
	for _, line := range last {
		if strings.HasSuffix(line, "end ID") {
			var sessions []struct{ ID, Kind string }
			out := run("weir sessions --json")
			if err := json.Unmarshal([]byte(out), &sessions); err != nil || len(sessions) < 2 {
				t.Fatalf("the sessions are %s, %v", out, err)
			}
			line = strings.Replace(line, "ID", sessions[1].ID, 1)
		}
		run(strings.Replace(line, "NAME", "demo", 1))
	}
	_ = publish
	_ = view
	for _, job := range []*printed.Job{second, dev} {
		if err := job.Stop(); err != nil {
			t.Error(err)
		}
	}
}

// id2 is the name or ID of the other node, for weir ping.
func id2(t *testing.T, ctx context.Context, shell *printed.Shell) string {
	t.Helper()
	out, err := shell.Run(ctx, "weir peers --json")
	var peers []struct {
		ID string `json:"peer_id"`
	}
	if err != nil || json.Unmarshal([]byte(out), &peers) != nil || len(peers) == 0 {
		t.Fatalf("weir peers --json: %v: %s", err, out)
	}
	return peers[0].ID
}

// needs reports whether line is incomplete: the reader has to add a file, a
// key, a URL or a command.
func needs(line string) bool {
	switch line {
	case "weir publish", "weir view", "weir policy key", "weir token key", "weir policy check", "weir config check", "weir node --config", "weir policy try", "weir policy push", "weir node --join", "weir ping", "weir drain":
		return true
	}
	return false
}

func find(t *testing.T, lines []string, begins string) string {
	t.Helper()
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, begins) })
	if i < 0 {
		t.Fatalf("the README does not show %s…: %q", begins, lines)
	}
	return lines[i]
}

// checkFlags has weir parse a command without running it: flags are parsed
// before --help is handled.
func checkFlags(t *testing.T, shell *printed.Shell, ctx context.Context, line string) {
	t.Helper()
	before, _, _ := strings.Cut(strings.ReplaceAll(line, "…", ""), " -- ")
	if strings.HasSuffix(before, "--join") || strings.HasSuffix(before, "--config") {
		before += " VALUE"
	}
	if out, err := shell.Run(ctx, before+" --help"); err != nil || !strings.Contains(out, "USAGE") {
		t.Errorf("%s: %v: %s", line, err, out)
	}
}

func checkTarget(t *testing.T, root, line string) {
	t.Helper()
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	target := strings.Fields(line)[1]
	if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(target) + `:`).Match(makefile) {
		t.Errorf("%s: the Makefile has no %s", line, target)
	}
}

// runTestnet runs a testnet up as printed, and then the commands that it prints.
func runTestnet(t *testing.T, ctx context.Context, shell *printed.Shell, line, scratch string) {
	dir := filepath.Join(scratch, fmt.Sprint("testnet", time.Now().UnixNano()))
	before, flags, more := strings.Cut(line, " -- ")
	line = before + " --dir " + dir
	if more {
		line += " -- " + flags
	}
	out, err := shell.Run(ctx, line)
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	down := "weir testnet down --dir " + dir
	hints := printed.Lines(out)
	if !slices.Contains(hints, down) || len(hints) < 3 {
		t.Errorf("%s prints the commands %q", line, hints)
	}
	for _, hint := range hints {
		if strings.HasPrefix(hint, "weir publish") {
			job, err := shell.Start(hint)
			if err == nil {
				if err = job.Await(ctx, "kbit/s"); err == nil {
					err = job.Stop()
				}
			}
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if hint == down {
			continue
		}
		if out, err := shell.Run(ctx, hint); err != nil {
			t.Errorf("%s: %v: %s", hint, err, out)
		}
	}
	if out, err := shell.Run(ctx, down); err != nil {
		t.Errorf("%s: %v: %s", down, err, out)
	}
}

// commandPaths are all commands, including "records list", as completion offers
// them.
func commandPaths(t *testing.T) []string {
	t.Helper()
	var all []string
	var walk func(path []string)
	walk = func(path []string) {
		for line := range strings.Lines(reads(t, append(append([]string{"__complete"}, path...), "")...)) {
			name, doc, _ := strings.Cut(strings.TrimSpace(line), "\t")
			if name == "" || doc == "" {
				continue
			}
			next := append(slices.Clone(path), name)
			all = append(all, strings.Join(next, " "))
			if len(next) < 3 {
				walk(next)
			}
		}
	}
	walk(nil)
	return all
}

// helpOf is the description in a command's help, without its indentation.
func helpOf(t *testing.T, path string) string {
	t.Helper()
	out := reads(t, append(strings.Fields(path), "--help")...)
	_, text, _ := strings.Cut(out, "DESCRIPTION:\n")
	text, _, _ = strings.Cut(text, "OPTIONS:")
	text, _, _ = strings.Cut(text, "COMMANDS:")
	return strings.ReplaceAll("\n"+text, "\n   ", "\n")
}
