package testnet

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStateIsReadAsWritten(t *testing.T) {
	dir := t.TempDir()
	if _, err := readState(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no state reads as %v", err)
	}
	want := state{Version: stateVersion, Started: time.Unix(1, 2).UTC(), Binary: "/bin/weir", Nodes: []Node{
		{Name: "n1", PID: 7, Start: "boot/9", Region: "r1", P2P: []string{"/ip4/127.0.0.1/tcp/1"}, HTTP: "http://127.0.0.1:2", Arg: []string{"node"}},
		{Name: "n2", PID: 8, Start: "boot/10"}, // not ready yet: no peer ID
	}}
	for range 2 { // the second time over the first
		if err := writeState(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readState(dir)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, %v\nwant %+v", got, err, want)
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*")); len(files) != 1 {
		t.Errorf("files %v are left", files)
	}
	if err := removeState(dir); err != nil {
		t.Error(err)
	}
	if err := removeState(dir); err != nil {
		t.Errorf("removing no state: %v", err)
	}
}

func TestBadStateIsNamed(t *testing.T) {
	for content, want := range map[string]string{
		"{":              "is damaged",
		`{"version":99}`: "has version 99",
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, stateFile)
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), path+" "+want) {
			t.Errorf("Open with %s = %v, want %q", content, err, want)
		}
		if err := os.WriteFile(filepath.Join(dir, lockFile), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := claim(dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("claim with %s = %v: it may tell of nodes that run", content, err)
		}
	}
}

func write(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestClaimTouchesOnlyWhatIsOurs(t *testing.T) {
	t.Run("a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "f")
		write(t, file)
		if _, err := claim(file); !errors.Is(err, ErrInput) {
			t.Errorf("claim = %v, want ErrInput", err)
		}
		if _, err := Open(file); !errors.Is(err, ErrInput) {
			t.Errorf("Open = %v, want ErrInput", err)
		}
	})
	t.Run("somebody's directory", func(t *testing.T) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "n1", "thesis.tex"))
		if _, err := claim(dir); !errors.Is(err, ErrInput) {
			t.Errorf("claim = %v, want ErrInput", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "n1", "thesis.tex")); err != nil {
			t.Error(err)
		}
	})
	t.Run("a directory that cannot be made", func(t *testing.T) {
		if _, err := claim("/proc/nope/testnet"); err == nil {
			t.Error("claim succeeded")
		}
	})
	t.Run("an earlier testnet's, ended", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new", "dir")
		unlock, err := claim(dir)
		if err != nil {
			t.Fatal(err)
		}
		unlock()
		ended := state{Version: stateVersion, Nodes: []Node{{Name: "n1", PID: os.Getpid(), Start: "another boot/1"}}}
		if err := writeState(dir, ended); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "n1", "log"))
		write(t, filepath.Join(dir, "notes", "log"))
		if unlock, err = claim(dir); err != nil {
			t.Fatal(err)
		}
		unlock()
		for path, kept := range map[string]bool{"n1": false, stateFile: false, "notes/log": true} {
			if _, err := os.Stat(filepath.Join(dir, path)); (err == nil) != kept {
				t.Errorf("%s: %v", path, err)
			}
		}
	})
	t.Run("a running one's", func(t *testing.T) {
		dir := t.TempDir()
		self, err := readProc(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, lockFile))
		running := state{Version: stateVersion, Nodes: []Node{{Name: "n1", PID: os.Getpid(), Start: self.start}, {Name: "n2", PID: os.Getpid(), Start: "another"}}}
		if err := writeState(dir, running); err != nil {
			t.Fatal(err)
		}
		if _, err := claim(dir); !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "1 of its 2 nodes run") {
			t.Errorf("claim = %v, want ErrBusy", err)
		}
		unlock, err := lock(dir)
		if err != nil {
			t.Fatalf("claim has kept the lock: %v", err)
		}
		unlock()
	})
	t.Run("one that is being started", func(t *testing.T) {
		dir := t.TempDir()
		unlock, err := lock(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer unlock()
		if _, err := claim(dir); !errors.Is(err, ErrBusy) {
			t.Errorf("claim = %v, want ErrBusy", err)
		}
		n := &Network{dir: dir}
		if err := n.Down(); !errors.Is(err, ErrBusy) {
			t.Errorf("Down = %v, want ErrBusy", err)
		}
	})
}

// sleeper starts a process that does nothing, with a name that is hard to parse
// in /proc/PID/stat.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	tail, err := exec.LookPath("tail")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "a) Z (1 2")
	if err := os.Symlink(tail, name); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "-f", "/dev/null")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// A pid that now belongs to another process must never be signalled.
func TestReusedPIDIsLeftAlone(t *testing.T) {
	cmd := sleeper(t)
	pid := cmd.Process.Pid
	now, err := readProc(pid)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	reused := state{Version: stateVersion, Nodes: []Node{{Name: "n1", PID: pid, Start: now.start + "0"}}}
	if err := writeState(dir, reused); err != nil {
		t.Fatal(err)
	}
	n, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n.Alive("n1") {
		t.Error("a node whose pid is another's counts as alive")
	}
	if err := n.Kill("n1"); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Kill = %v, want os.ErrProcessDone", err)
	}
	if err := n.Down(); err != nil {
		t.Error(err)
	}
	if !alive(pid, now.start) {
		t.Fatal("the process that has the pid now was ended")
	}

	if err := signal(pid, now.start, syscall.SIGKILL); err != nil {
		t.Errorf("signal to the right one = %v", err)
	}
	eventually(t, "it has ended", func() bool { return !alive(pid, now.start) }) // a zombie: we have not waited
	if err := signal(pid, now.start, syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal to a zombie = %v, want os.ErrProcessDone", err)
	}
	_ = cmd.Wait()
	if _, err := lookup(pid, now.start); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("lookup after it was waited for = %v", err)
	}
}

func TestLogTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	long := strings.Repeat("x", 300)
	for _, c := range []struct{ name, log, want string }{
		{"nothing", "", "(the log is empty)"},
		{"one line", "boom\n", "boom"},
		{"the last lines of many", "first\n" + strings.Repeat("l\n", tailLines), strings.TrimSpace(strings.Repeat("l\n", tailLines))},
		{"no half line", strings.Repeat(long+"\n", 20) + "end\n", strings.Repeat(long+"\n", 11) + "end"},
		{"one endless line", strings.Repeat("x", 2*tailBytes), strings.Repeat("x", tailBytes)},
	} {
		if err := os.WriteFile(path, []byte(c.log), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := logTail(path); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := logTail(path + "2"); !strings.Contains(got, "no such file") {
		t.Errorf("no log: %q", got)
	}
}
