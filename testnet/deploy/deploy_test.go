// Package deploy tests the files that weir is deployed with: each file of
// cmd/weir/deploy is used as in production. Packages are installed, containers
// run, and manifests are read by the types of the Kubernetes API.
//
// It needs root, for network namespaces, containers and an installation that
// changes nothing on this machine, and docker-compose, podman, runc and
// systemd-analyze, which testnet/deps.sh installs.
package deploy

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"weir/testnet/printed"
)

// patience bounds every wait for something that must happen.
const patience = 90 * time.Second

// built is the directory of the release under test.
var built string

var given = flag.String("released", "", "test what was released to this `directory` of make release, instead of building it")

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("skipped under -short: every test here builds what is released")
		return
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "weir-deploy-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if built = *given; built == "" {
		if built, err = release(filepath.Join(dir, "one")); err != nil {
			return 0, err
		}
	}
	return m.Run(), nil
}

// root is the repository's root directory.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// artefact is the path of a file of cmd/weir/deploy.
func artefact(name string) string { return filepath.Join(root(), "cmd", "weir", "deploy", name) }

// release copies the source to dir, as the only commit of a repository, and
// builds the release for this machine's architecture there. It returns the
// directory of the release.
func release(dir string) (string, error) {
	list, err := exec.Command("git", "-C", root(), "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return "", fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		from, to := filepath.Join(root(), name), filepath.Join(dir, name)
		info, err := os.Stat(from)
		if os.IsNotExist(err) {
			continue // deleted but not committed yet
		} else if err != nil {
			return "", err
		}
		b, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, b, info.Mode().Perm()&fs.FileMode(0o755)); err != nil {
			return "", err
		}
	}
	const script = `set -e
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='2026-01-02T03:04:05Z' GIT_COMMITTER_DATE='2026-01-02T03:04:05Z'
git init -q .
git add -A
git -c user.name=test -c user.email=test@localhost -c commit.gpgsign=false commit -qm test
ARCHS=$(go env GOHOSTARCH) cmd/weir/deploy/release.sh`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("release: %w\n%s", err, out)
	}
	return filepath.Join(dir, "dist"), nil
}

// binary is the released binary.
func binary() string { return filepath.Join(built, "image", "weir-linux-"+runtime.GOARCH) }

// one is the only file of the release whose name has that ending.
func one(t *testing.T, ending string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(built, "*"+ending))
	if err != nil || len(found) != 1 {
		t.Fatalf("released are %q that end in %s, %v", found, ending, err)
	}
	return found[0]
}

// needs skips the test unless it runs as root and the tools are installed.
func needs(t *testing.T, tools ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("there is no %s: make deps installs what the tests need", tool)
		}
	}
}

// A shell runs in a network namespace of its own, where this machine has the
// addresses 10.77.0.1 to 10.77.0.3 besides loopback.
type shell struct {
	t *testing.T
	*printed.Shell
}

func newShell(t *testing.T, dir string) shell {
	t.Helper()
	s, err := printed.NewShell(binary(), dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	sh := shell{t, s}
	sh.run("ip link add weir0 type veth peer name weir1 && ip link set weir0 up && ip link set weir1 up && " +
		"for i in 1 2 3; do ip addr add 10.77.0.$i/24 dev weir0; done && ip route add default dev weir0")
	return sh
}

// run runs a command that must succeed, and returns its output.
func (s shell) run(line string) string {
	s.t.Helper()
	out, err := s.try(line)
	if err != nil {
		s.t.Fatalf("%s: %v: %s", line, err, out)
	}
	return out
}

func (s shell) try(line string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience) // also in a clean-up
	defer cancel()
	return s.Run(ctx, line)
}

// start starts a long-running command, waits until it has printed says, and
// stops it at the end of the test.
func (s shell) start(line, says string) *printed.Job {
	s.t.Helper()
	job, err := s.Start(line)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = job.Stop() })
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	if err := job.Await(ctx, says); err != nil {
		s.t.Fatal(err)
	}
	return job
}

// eventually polls cond until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// goesOn waits until a publisher or viewer has printed further statistics with
// media in them.
func goesOn(t *testing.T, what string, job *printed.Job) {
	t.Helper()
	lines := func() (n int) {
		for line := range strings.Lines(job.Output()) {
			if strings.Contains(line, "kbit/s") && !strings.Contains(line, " 0 kbit/s") {
				n++
			}
		}
		return n
	}
	before := lines()
	eventually(t, what+" goes on", func() bool { return lines() >= before+3 })
}

// says fails the test unless text contains every one of parts.
func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q does not say %q", text, p)
		}
	}
}
