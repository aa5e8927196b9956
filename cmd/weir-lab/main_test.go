package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
)

// run runs weir-lab with args, and returns its output, an error last, and its
// exit code.
func run(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	var b bytes.Buffer
	a := app()
	a.Writer, a.ErrWriter = &b, &b
	if err := cmdline.Run(t.Context(), a, append([]string{a.Name}, args...)); err != nil {
		b.WriteString(err.Error())
		code = cmdline.ExitFailure
		if coder := cli.ExitCoder(nil); errors.As(err, &coder) {
			code = coder.ExitCode()
		}
	}
	return b.String(), code
}

func TestBadCommands(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for name, c := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"benchmarking one node":         {[]string{"bench", "cascade", "--nodes", "1"}, cmdline.ExitInput, []string{"3 to 100"}},
		"comparing what is not there":   {[]string{"bench", "discovery", "--modes", "raft"}, cmdline.ExitInput, []string{"raft", "broker-3"}},
		"comparing with no redis":       {[]string{"bench", "discovery", "--modes", "redis", "--redis", "/no/redis"}, cmdline.ExitInput, []string{"redis-server", "--modes"}},
		"redrawing what is no report":   {[]string{"bench", "discovery", "--from", "/dev/null"}, cmdline.ExitInput, []string{"/dev/null", "no report"}},
		"benchmarking with an argument": {[]string{"bench", "cascade", "20"}, cmdline.ExitInput, []string{"--nodes"}},
		"forwarding to nobody":          {[]string{"bench", "forward", "--viewers", "0", "--server", "x http://a/ http://a/ 1"}, cmdline.ExitInput, []string{"1 to"}},
		"forwarding by half a server":   {[]string{"bench", "forward", "--server", "x http://a/"}, cmdline.ExitInput, []string{"WHEP"}},
		"forwarding without weir":       {[]string{"bench", "forward"}, cmdline.ExitInput, []string{"--weir FILE"}},
		"benchmarking without weir":     {[]string{"bench", "cascade", "--quiet"}, cmdline.ExitInput, []string{"--weir FILE"}},
		"a weir that is not there":      {[]string{"bench", "cascade", "--quiet", "--weir", "/no/weir"}, cmdline.ExitInput, []string{"/no/weir"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, code := run(t, c.args...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, want := range c.says {
				if !strings.Contains(out, want) {
					t.Errorf("it says %q, without %q", out, want)
				}
			}
		})
	}
}

// The reference in the repository matches the help texts.
func TestCommandReferenceIsUpToDate(t *testing.T) {
	kept, err := os.ReadFile("../../.github/docs/lab.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(kept) != cmdline.Markdown(app()) {
		t.Error(".github/docs/lab.md is not what the help texts say: run make docs")
	}
}

// Every command of weir-lab in the documents exists.
func TestPrintedCommandsAreThere(t *testing.T) {
	files, err := filepath.Glob("../../.github/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("`weir-lab( [a-z][a-z -]*)")
	found := 0
	for _, file := range append(files, "../../README.md", "../../testnet/results/sim.md", "../../testnet/results/sim-200.md", "../../testnet/results/discovery.md", "../../testnet/results/forward.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range shown.FindAllSubmatch(text, -1) {
			found++
			if err := cmdline.UnknownCommand(append([]string{"weir-lab"}, strings.Fields(string(m[1]))...), app().Commands); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
	if found < 3 {
		t.Errorf("the documents show %d commands of weir-lab", found)
	}
}

// Dependencies of weir-lab alone stay out of weir, and so does gRPC: each would
// add megabytes to the release.
func TestWeirLinksNothingOfTheLab(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "weir/cmd/weir").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, pkg := range strings.Fields(string(out)) {
		for _, only := range []string{"github.com/redis/", "google.golang.org/grpc", "weir/testnet/bench", "weir/testnet/sim", "weir/testnet/plot", "weir/testnet/lab"} {
			if strings.HasPrefix(pkg, only) {
				t.Errorf("weir links %s", pkg)
			}
		}
	}
}
