package testnet

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// weir is the binary under test, built once. Empty under -short.
var weir string

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "weir-testnet")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	weir = filepath.Join(dir, "weir")
	if out, err := exec.Command("go", "build", "-o", weir, "weir/cmd/weir").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build weir: %w\n%s", err, out)
	}
	return m.Run(), nil
}

func up(t *testing.T, cfg Config) *Network {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Cleanup(func() { goleak.VerifyNone(t) })
	cfg.Binary = weir
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	n, err := Up(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func TestUpServesUntilClosed(t *testing.T) {
	n := up(t, Config{N: 3, Regions: 2})
	for i, region := range []string{"r1", "r2", "r1"} {
		node := n.Node(fmt.Sprintf("n%d", i+1))
		var status struct{ Region string }
		if err := node.Get(t.Context(), "/status", &status); err != nil {
			t.Fatal(err)
		}
		if status.Region != region {
			t.Errorf("%s is in region %q, want %q", node.Name, status.Region, region)
		}
	}
	if err := n.Kill("n2"); err != nil {
		t.Fatal(err)
	}
	if n.Alive("n2") {
		t.Error("n2 is alive after Kill")
	}
	if err := n.Kill("n2"); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("second Kill = %v, want os.ErrProcessDone", err)
	}
	if err := n.Restart(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	if err := n.AwaitRecords(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	for _, node := range n.Nodes() {
		if _, err := readProc(node.PID); err == nil {
			t.Errorf("%s, pid %d, is left", node.Name, node.PID)
		}
	}
}
