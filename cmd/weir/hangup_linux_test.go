package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// terminalPair opens a pseudo-terminal, as in pty(7).
func terminalPair(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

// A node started from a terminal ends when the terminal is closed, and reloads
// its configuration at other SIGHUPs.
func TestTerminalThatIsClosed(t *testing.T) {
	master, slave := terminalPair(t)
	dir := t.TempDir()
	ready, log := filepath.Join(dir, "ready.json"), filepath.Join(dir, "log")
	out, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(os.Args[0], "node", "--ready-file", ready, "--data-dir", dir, "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media-port", "0", "--listen", "/ip4/127.0.0.1/tcp/0")
	cmd.Env = append(os.Environ(), asWeir+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	await := func(what string, cond func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !cond(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				b, _ := os.ReadFile(log)
				t.Fatalf("%s: not within a minute:\n%s", what, b)
			}
		}
	}
	said := func(words string) bool {
		b, err := os.ReadFile(log)
		return err == nil && bytes.Contains(b, []byte(words))
	}
	await("ready", func() bool { _, err := os.Stat(ready); return err == nil })
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	await("the configuration is read", func() bool { return said("configuration read again") })
	if err := errors.Join(slave.Close(), master.Close()); err != nil { // and the kernel sends SIGHUP
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it goes on without its terminal")
	}
	b, err := os.ReadFile(log)
	if err != nil || strings.Count(string(b), "configuration read again") != 1 || !said("the terminal is closed: the node ends") {
		t.Errorf("%v: %s", err, b)
	}
}
