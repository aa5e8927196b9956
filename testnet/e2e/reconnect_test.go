package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"weir/sfu/client"
)

// A mediaCommand is a running weir publish or weir view, with --json.
type mediaCommand struct {
	cmd   *exec.Cmd
	out   syncBuffer
	ended chan error
}

type mediaLine struct {
	Final  bool    `json:"final"`
	URL    string  `json:"url"`
	Frames uint64  `json:"frames"`
	Gaps   int     `json:"gaps"`
	Gap    float64 `json:"gap_ms"`
	Lost   uint64  `json:"lost"`
	Tracks []struct {
		Kind string `json:"kind"`
	} `json:"tracks"`
}

func runMedia(t *testing.T, args ...string) *mediaCommand {
	t.Helper()
	m := &mediaCommand{ended: make(chan error, 1)}
	m.cmd = exec.Command(weir, append([]string{args[0], "--json", "--interval", "200ms"}, args[1:]...)...)
	m.cmd.Env = cleanEnv()
	m.cmd.Stdout = &m.out
	var said syncBuffer
	m.cmd.Stderr = &said
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { m.ended <- m.cmd.Wait() }()
	t.Cleanup(func() {
		_ = m.cmd.Process.Kill()
		if t.Failed() {
			t.Logf("weir %s said:\n%s%s", strings.Join(args, " "), said.String(), m.out.String())
		}
	})
	return m
}

// last is the last complete line.
func (m *mediaCommand) last() (l mediaLine) {
	lines := bytes.Split([]byte(m.out.String()), []byte("\n"))
	if len(lines) > 1 {
		_ = json.Unmarshal(lines[len(lines)-2], &l)
	}
	return l
}

// interrupt interrupts it and returns its exit code.
func (m *mediaCommand) interrupt(t *testing.T) int {
	t.Helper()
	_ = m.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-m.ended:
		return m.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("it does not end")
		return -1
	}
}

// weir publish and weir view outlive their nodes: they continue elsewhere,
// report the time without media, and the recording continues too.
func TestPublishAndViewReconnect(t *testing.T) {
	t.Parallel()
	w := up(t, 4, nil)
	first, second, third := w.n(2), w.n(3), w.n(4) // n1 is the bootstrap peer
	w.see(t)
	bare := func(url string) string { return strings.TrimPrefix(url, "http://") } // no scheme is needed
	record := filepath.Join(t.TempDir(), "record.ivf")
	p := runMedia(t, "publish", "--pattern", bare(first.whip("demo")), third.whip("demo"))
	third.finds(t, "demo")
	v := runMedia(t, "view", "--save", record, bare(second.whep("demo")), third.whep("demo"))
	once := runMedia(t, "view", "--reconnect", "0", second.whep("demo"))
	eventually(t, "they view", func() bool { return v.last().Frames > 20 && once.last().Frames > 20 })

	if err := w.Kill(second.Name); err != nil {
		t.Fatal(err)
	}
	killed := time.Now()
	seen := v.last().Frames
	eventually(t, "the viewer goes on elsewhere", func() bool {
		l := v.last()
		return third.serves(l.URL) && l.Gaps == 1 && l.Frames > seen+30
	})
	t.Logf("the viewer's gap: %.0f ms, 30 frames more after %v", v.last().Gap, time.Since(killed))
	select {
	case <-once.ended:
		if code := once.cmd.ProcessState.ExitCode(); code != failure {
			t.Errorf("with --reconnect 0: exit code %d, want %d", code, failure)
		}
	case <-time.After(patience):
		t.Error("with --reconnect 0 it does not end")
	}

	if err := w.Kill(first.Name); err != nil {
		t.Fatal(err)
	}
	killed = time.Now()
	eventually(t, "the publisher goes on elsewhere", func() bool { l := p.last(); return third.serves(l.URL) && l.Gaps == 1 })
	seen = v.last().Frames
	eventually(t, "the viewer sees it", func() bool { return v.last().Frames > seen+30 })
	t.Logf("the publisher's gap: %.0f ms; viewed again after %v", p.last().Gap, time.Since(killed))
	if g := p.last().Gap; g <= 0 || g > 15_000 {
		t.Errorf("the publisher's gap is given as %v ms", g)
	}

	if code := v.interrupt(t); code != 0 {
		t.Errorf("the viewer's exit code is %d", code)
	}
	if code := p.interrupt(t); code != 0 {
		t.Errorf("the publisher's exit code is %d", code)
	}
	if l := v.last(); !l.Final || l.Gaps < 1 || len(l.Tracks) != 2 {
		t.Errorf("the viewer ends with %+v", l)
	}
	s, err := client.Open(record)
	if err != nil || s.Length() < 3*time.Second {
		t.Errorf("the recording: %v, %v", s, err)
	}
}
