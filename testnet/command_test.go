package testnet

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// command runs weir as a user would, in dir, and returns its output and exit code.
func command(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(weir, args...)
	var out, errs bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	cmd.Env = nodeEnv()
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), code
}

func TestCommandsShareANetwork(t *testing.T) {
	realProcesses(t)
	dir := t.TempDir()
	expect := func(code int, want string, args ...string) string {
		t.Helper()
		out, errs, got := command(t, dir, append([]string{"testnet"}, args...)...)
		if got != code || !strings.Contains(out+errs, want) {
			t.Errorf("weir testnet %s: exit %d, want %d and %q:\n%s%s", strings.Join(args, " "), got, code, want, out, errs)
		}
		return out
	}
	t.Cleanup(func() { command(t, dir, "testnet", "down") })
	status := func() (all []NodeStatus) {
		t.Helper()
		if err := json.Unmarshal([]byte(expect(0, "", "status", "--json")), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}

	expect(2, "start one with weir testnet up", "status")
	expect(2, "no testnet in", "kill", "n1")
	expect(0, "nothing to end", "down")
	expect(3, "at least one is needed", "up", "-n", "0")
	expect(3, "flags for every node go after --", "up", "three")
	expect(1, "flag provided but not defined: -bogus", "up", "-n", "2", "--", "--bogus")
	expect(0, "3 nodes up in", "up", "-n", "3", "--region-count", "3", "--", "--session-limit", "7")
	expect(1, "testnet is running: 3 of its 3 nodes", "up")
	expect(0, "3 of 3", "status")

	all := status()
	if len(all) != 3 || all[2].Region != "r3" || all[2].Sessions.Limit != 7 || all[2].Seen != 3 {
		t.Errorf("status of three nodes, with --session-limit 7: %+v", all)
	}
	expect(3, "there are n1 to n3", "kill", "n4")
	expect(3, "--signal NOPE: want KILL", "kill", "--signal", "NOPE", "n2")
	expect(3, "the name of one node", "kill")
	expect(0, "sent SIGSTOP", "kill", "n2", "--signal", "sigstop")
	expect(0, "sent SIGKILL", "kill", "n3")
	expect(1, "n3 does not run any more", "kill", "n3")
	if all := status(); all[0].State != Running || all[1].State != Paused || all[2].State != Dead {
		t.Errorf("states %s %s %s, want running, paused, dead", all[0].State, all[1].State, all[2].State)
	}
	n, err := Open(filepath.Join(dir, ".testnet"))
	if err != nil {
		t.Fatal(err)
	}
	expect(0, "2 of 3 nodes ran and have ended", "down")
	gone(t, n.Nodes())
	nothingLeft(t, dir)
	expect(0, "nothing to end", "down")
	expect(0, "1 nodes up", "up", "-n", "1") // in the directory of the previous one
}

func TestDemoShowsACascade(t *testing.T) {
	realProcesses(t)
	dir := t.TempDir()
	out, errs, code := command(t, dir, "testnet", "demo", "--seconds", "4")
	if code != 0 {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	for _, want := range []string{
		"5 nodes are ready", "sends the built-in clip", "asks n1: served by it, first frame after",
		"n1         hands the client on to n", "chosen with score", "score of each candidate: n", "asked to reserve: n",
		"cascade link to n1 opened in", "pulls demo from n1: ready after", "redirected by 307, served by n", "topic stream/demo",
		"NODE ", "HELD BY", "demo  video/VP8 audio/opus  7 viewers", "  origin  2 viewers", "  relay  ",
		"Console: http://127.0.0.1:", "media flowed over cascade links", "viewer 3 at n", "viewer 7 at n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("colours, though this is no terminal")
	}
	if t.Failed() {
		t.Log(out)
	}
	nothingLeft(t, dir)
	if _, err := Open(filepath.Join(dir, ".testnet")); !errors.Is(err, ErrNone) {
		t.Errorf("Open = %v, want ErrNone", err)
	}
}

// The demo's exit code says whether media flowed over a link: it must not be 0
// when none did, whatever else works.
func TestDemoFailsWithoutACascade(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want []string
	}{
		{"a full node that refuses", []string{"--overflow", "refuse", "--direct=false", "--viewers", "3", "--nodes", "2"},
			[]string{"no viewer was served by another node than n1", "viewer 3: ", "503", "sessions: 3 of 3"}},
		{"nobody is redirected", []string{"--session-limit", "9", "--direct=false", "--viewers", "2", "--nodes", "2"},
			[]string{"no viewer was served by another node than n1"}},
		{"no other node", []string{"--direct=false", "--viewers", "3", "--nodes", "1"},
			[]string{"no viewer was served by another node than n1", "viewer 3: "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			realProcesses(t)
			dir := t.TempDir()
			out, errs, code := command(t, dir, append([]string{"testnet", "demo", "--seconds", "1"}, c.args...)...)
			if code != 1 {
				t.Errorf("exit %d, want 1", code)
			}
			for _, want := range append(c.want, "media did not flow over a cascade link") {
				if !strings.Contains(errs, want) {
					t.Errorf("it does not say that %q", want)
				}
			}
			if t.Failed() {
				t.Log(out + errs)
			}
			nothingLeft(t, dir)
		})
	}
}

// A relay that stops forwarding is detected at the end of the demo, even if its
// viewer had frames before.
func TestDemoFailsWhenMediaStops(t *testing.T) {
	d := startDemo(t, "--nodes", "2", "--viewers", "0", "--seconds", "5")
	d.reaches(t, "Console:")
	n, err := Open(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Pause("n2"); err != nil {
		t.Fatal(err)
	}
	if code := d.wait(); code != 1 || !strings.Contains(d.errs.String(), "got no frame in the last") {
		t.Errorf("exit %d\n%s%s", code, d.output(t), d.errs.String())
	}
	nothingLeft(t, d.dir)
}

// runningDemo is a demo under way.
type runningDemo struct {
	cmd  *exec.Cmd
	dir  string // of its testnet
	out  string // file of its output
	errs bytes.Buffer
	done bool
}

func startDemo(t *testing.T, args ...string) *runningDemo {
	t.Helper()
	realProcesses(t)
	d := &runningDemo{dir: filepath.Join(t.TempDir(), "net"), out: filepath.Join(t.TempDir(), "out")}
	out, err := os.Create(d.out)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	d.cmd = exec.Command(weir, append([]string{"testnet", "demo", "--dir", d.dir}, args...)...)
	d.cmd.Stdout, d.cmd.Stderr = out, &d.errs
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !d.done {
			_ = d.cmd.Process.Kill()
			d.wait()
		}
	})
	return d
}

func (d *runningDemo) output(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(d.out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// reaches waits until the demo has printed text.
func (d *runningDemo) reaches(t *testing.T, text string) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(d.output(t), d.errs.String())
		}
	}()
	eventually(t, "the demo prints "+text, func() bool {
		if !alivePID(d.cmd.Process.Pid) {
			t.Fatalf("the demo has ended before it printed %q", text)
		}
		return strings.Contains(d.output(t), text)
	})
}

// alivePID reports whether a child that has not been waited for still runs.
func alivePID(pid int) bool {
	p, err := readProc(pid)
	return err == nil && !p.ended()
}

func (d *runningDemo) wait() (code int) {
	_ = d.cmd.Wait()
	d.done = true
	return d.cmd.ProcessState.ExitCode()
}

func TestInterruptedDemoLeavesNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		at   string
		args []string
		sig  syscall.Signal
		code int
	}{
		{"while it sets up", "viewer 2", nil, syscall.SIGINT, 1},
		{"while it runs", "Console:", nil, syscall.SIGINT, 0},
		{"while it sets up, asked by kill", "viewer 2", nil, syscall.SIGTERM, 1},
		{"before its time is over", "Console:", []string{"--seconds", "60"}, syscall.SIGINT, 1},
		{"killed", "viewer 2", nil, syscall.SIGKILL, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDemo(t, append(c.args, "--nodes", "2", "--viewers", "3")...)
			d.reaches(t, c.at)
			n, err := Open(d.dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.cmd.Process.Signal(c.sig); err != nil {
				t.Fatal(err)
			}
			if code := d.wait(); code != c.code {
				t.Errorf("exit %d, want %d\n%s%s", code, c.code, d.output(t), d.errs.String())
			}
			if c.sig == syscall.SIGKILL { // the kernel kills its nodes with it
				eventually(t, "the nodes have ended", func() bool { return !n.Alive("n1") && !n.Alive("n2") })
				if err := n.Down(); err != nil {
					t.Error(err)
				}
			}
			gone(t, n.Nodes())
			nothingLeft(t, d.dir)
		})
	}
}

func TestDemoRejectsBadInput(t *testing.T) {
	realProcesses(t)
	for _, c := range []struct{ args, want string }{
		{"--overflow relay", "the demo shows redirect and refuse"},
		{"--overflow explode", "the demo shows redirect and refuse"},
		{"--seconds -1", "must not be negative"},
		{"--session-limit 0", "at least 1"},
		{"--nodes 0", "at least one is needed"},
		{"--dir /proc/version", "is not a directory"},
		{"now", "takes no arguments"},
	} {
		_, errs, code := command(t, t.TempDir(), append([]string{"testnet", "demo"}, strings.Fields(c.args)...)...)
		if code != 3 || !strings.Contains(errs, c.want) {
			t.Errorf("%s: exit %d, want 3 and %q:\n%s", c.args, code, c.want, errs)
		}
	}
}
