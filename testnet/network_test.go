package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"weir/capacity/event"
	"weir/dht/directory"
	"weir/sfu"
	"weir/sfu/client"
)

// weir is the binary under test, built once; not with -short.
var weir string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	if testing.Short() {
		return m.Run(), nil
	}
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

// realProcesses skips t with -short, and checks that it leaves no goroutine.
func realProcesses(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Cleanup(func() { goleak.VerifyNone(t) })
}

// up starts a network that is closed at the end of the test.
func up(t *testing.T, cfg Config) *Network {
	t.Helper()
	realProcesses(t)
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

// eventually waits until ok, with a generous limit.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for deadline := time.After(time.Minute); !ok(); {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// gone fails unless the processes of all nodes have ended.
func gone(t *testing.T, nodes []Node) {
	t.Helper()
	for _, node := range nodes {
		if alive(node.PID, node.Start) {
			t.Errorf("%s, pid %d, is left running", node.Name, node.PID)
		}
	}
}

// In every discovery mode all nodes see all others, by the list that testnet
// writes; a node that comes back at other addresses is updated there.
func TestNetworkOfEachDiscovery(t *testing.T) {
	for _, c := range []struct {
		discovery directory.Mode
		brokers   int
		listed    int
	}{{directory.Broker, 2, 2}, {directory.Pull, 0, 3}, {directory.Push, 0, 3}} {
		t.Run(string(c.discovery), func(t *testing.T) {
			n := up(t, Config{N: 3, Discovery: c.discovery, Brokers: c.brokers})
			lists := func() bool {
				servers, err := os.ReadFile(filepath.Join(n.Dir(), serverFile))
				if err != nil {
					t.Fatal(err)
				}
				list, err := directory.ParseServers(serverFile, servers)
				if err != nil {
					t.Fatal(err)
				}
				for i, node := range n.Nodes()[:c.listed] {
					if len(list) != c.listed || list[i].ID != node.PeerID || !strings.Contains(string(servers), node.P2P[0]) {
						return false
					}
				}
				return true
			}
			if !lists() {
				t.Error("the list is not that of the servers")
			}
			var told struct {
				Discovery directory.Mode
				Servers   int
			}
			eventually(t, "the list is read", func() bool {
				return n.Node("n3").Get(t.Context(), "/status", &told) == nil && told.Discovery == c.discovery && told.Servers == c.listed
			})
			if err := n.Restart(t.Context(), "n2"); err != nil {
				t.Fatal(err)
			}
			if !lists() {
				t.Error("the list is not that of the servers after a restart")
			}
			if c.discovery == directory.Pull {
				return // others use the dead connection to the killed process for up to half a minute
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := n.AwaitRecords(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	for _, cfg := range []Config{{N: 2, Brokers: 1}, {N: 2, Discovery: directory.Broker, Brokers: 3}, {N: 2, Discovery: "some"}} {
		cfg.Dir = t.TempDir()
		if _, err := Up(t.Context(), cfg); !errors.Is(err, ErrInput) {
			t.Errorf("%+v: %v, want bad input", cfg, err)
		}
	}
}

func TestNetworkServesWhatIsLeftOfIt(t *testing.T) {
	n := up(t, Config{N: 3, Regions: 2})
	for i, s := range n.Status(t.Context()) {
		if want := fmt.Sprintf("n%d", i+1); s.Name != want || s.State != Running || !s.Alive || s.Seen != 3 || s.Load != "active" || s.PeerID == "" {
			t.Errorf("status %+v, want %s running, and 3 records seen", s, want)
		}
		if want := fmt.Sprintf("r%d", i%2+1); s.Region != want {
			t.Errorf("%s is in region %s, want %s", s.Name, s.Region, want)
		}
	}
	if err := n.Kill("n2"); err != nil {
		t.Fatal(err)
	}
	if err := n.Kill("n2"); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("second Kill = %v, want os.ErrProcessDone", err)
	}
	if s := n.Status(t.Context())[1]; s.Alive || s.State != Dead {
		t.Errorf("status of the killed node: %+v", s)
	}

	pub, err := client.Publish(t.Context(), client.PublishConfig{URL: n.Node("n1").HTTP + "/whip/demo", Media: client.Pattern()})
	if err != nil {
		t.Fatal(err)
	}
	sending, stop := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() { sent <- pub.Run(sending) }()
	defer func() {
		stop()
		<-sent
		_ = pub.Close()
	}()
	v, err := client.View(t.Context(), client.ViewConfig{URL: n.Node("n3").HTTP + "/whep/demo", Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	select {
	case <-v.FirstFrame():
	case <-time.After(20 * time.Second):
		t.Fatal("no frame at n3 of a stream published at n1")
	}

	if err := n.Down(); err != nil {
		t.Fatal(err)
	}
	gone(t, n.Nodes())
	if _, err := Open(n.Dir()); !errors.Is(err, ErrNone) {
		t.Errorf("Open after Down = %v, want ErrNone", err)
	}
	if err := n.Down(); err != nil {
		t.Errorf("second Down: %v", err)
	}
}

func TestNodeComesBackAsItself(t *testing.T) {
	n := up(t, Config{N: 2, NodeFlags: func(i int) []string { return []string{"--zone", fmt.Sprintf("z%d", i)} }})
	before := n.Node("n2")
	if err := n.Restart(t.Context(), "n2"); err != nil {
		t.Fatal(err)
	}
	after := n.Node("n2")
	if after.PeerID != before.PeerID || after.PID == before.PID && after.Start == before.Start {
		t.Errorf("n2 was %s, pid %d, and is %s, pid %d", before.PeerID, before.PID, after.PeerID, after.PID)
	}
	if err := n.AwaitRecords(t.Context()); err != nil {
		t.Fatal(err)
	}
	var s struct{ Record struct{ Zone string } }
	if err := after.Get(t.Context(), "/status", &s); err != nil || s.Record.Zone != "z2" {
		t.Errorf("its zone is %q (%v), want z2: its flags", s.Record.Zone, err)
	}
}

// A paused node keeps its sockets, does not answer, and continues as if nothing
// had happened; a paused one must still end at Down.
func TestPausedNode(t *testing.T) {
	n := up(t, Config{N: 2})
	state := func() string { return n.Status(t.Context())[1].State }
	if err := n.Pause("n2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n2 is paused", func() bool { return state() == Paused })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := n.Node("n2").Get(ctx, "/status", new(any)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused node answers: %v", err)
	}
	if err := n.AwaitRecords(t.Context()); err != nil {
		t.Errorf("the others wait for the records of a paused node: %v", err)
	}
	if err := n.Resume("n2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "n2 runs again", func() bool { return state() == Running })
	if err := n.Pause("n2"); err != nil {
		t.Fatal(err)
	}
	if err := n.Down(); err != nil {
		t.Fatal(err)
	}
	gone(t, n.Nodes())
}

func TestEventsArriveUntilTheNodeEnds(t *testing.T) {
	n := up(t, Config{N: 1})
	node := n.Node("n1")
	first := make(chan sfu.Event, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- node.API().Events(t.Context(), "/events", func(data []byte) error {
			var e sfu.Event
			if err := json.Unmarshal(data, &e); err != nil {
				return err
			}
			if e.Kind == event.NodeReady {
				return nil
			}
			select {
			case first <- e:
			default:
			}
			return nil
		})
	}()
	pub, err := client.Publish(t.Context(), client.PublishConfig{URL: node.HTTP + "/whip/demo", Media: client.Pattern()})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	select {
	case e := <-first:
		if e.Kind != event.SessionOpened || e.Stream != "demo" {
			t.Errorf("first event is %+v, want the publisher's session", e)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no event of a publisher")
	}
	if err := n.Kill("n1"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || t.Context().Err() != nil {
		t.Errorf("Events of a killed node = %v", err)
	}
}

func TestAPIErrorsNameTheRequest(t *testing.T) {
	n := up(t, Config{N: 1})
	err := n.Node("n1").Get(t.Context(), "/records/nobody", new(any))
	if err == nil || !strings.Contains(err.Error(), "/api/v1/records/nobody: 400") || !strings.Contains(err.Error(), "no peer ID") {
		t.Errorf("error %v does not say what was asked and answered", err)
	}
}

func TestUpFailsWithTheLogOfTheNodeThatExited(t *testing.T) {
	for _, bad := range []int{1, 3} {
		t.Run(fmt.Sprintf("n%d", bad), func(t *testing.T) {
			realProcesses(t)
			dir := t.TempDir()
			_, err := Up(t.Context(), Config{Dir: dir, N: 3, Binary: weir, NodeFlags: func(i int) []string {
				if i == bad {
					return []string{"--overflow", "explode"}
				}
				return nil
			}})
			if err == nil {
				t.Fatal("Up succeeded")
			}
			for _, want := range []string{fmt.Sprintf("n%d is not ready: it exited (exit status 3)", bad), filepath.Join(dir, fmt.Sprintf("n%d", bad), "log"), "explode"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error lacks %q:\n%v", want, err)
				}
			}
			nothingLeft(t, dir)
		})
	}
}

// nothingLeft fails if a process works in dir, or if its state still exists.
func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if _, err := Open(dir); !errors.Is(err, ErrNone) {
		t.Errorf("Open = %v, want ErrNone", err)
	}
	if pids := processesNaming(t, dir); len(pids) > 0 {
		t.Errorf("processes %v are left", pids)
	}
}

// processesNaming returns the processes with dir on their command line.
func processesNaming(t *testing.T, dir string) (pids []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.Contains(string(b), dir) {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// script writes a program that takes weir's place.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "weir")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUpGivesUp(t *testing.T) {
	realProcesses(t)
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	hang := "read x <> " + fifo // no child process, which nothing would end
	const soon = 200 * time.Millisecond
	for _, c := range []struct {
		name  string
		limit time.Duration // of the context
		cfg   Config
		want  string
	}{
		{"after its time", time.Minute, Config{N: 2, Binary: script(t, hang), Timeout: soon}, "n1 is not ready: not up after 200ms"},
		{"when its context ends", soon, Config{N: 2, Binary: script(t, hang)}, "n1 is not ready: context deadline exceeded"},
		{"on a program that ends silently", time.Minute, Config{N: 1, Binary: script(t, "exit 0")}, "(the log is empty)"},
		{"on a program that is not there", time.Minute, Config{N: 1, Binary: "/nonexistent/weir"}, "start n1: "},
		{"on a ready file that is none", time.Minute, Config{N: 1, Binary: script(t, `echo '{' > "$5"; `+hang)}, "n1 is not ready: unexpected end of JSON"},
		{"on no nodes", time.Minute, Config{}, "testnet of 0 nodes"},
		{"on fewer than no regions", time.Minute, Config{N: 1, Regions: -1}, "testnet of -1 regions"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.cfg.Dir = t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), c.limit)
			defer cancel()
			_, err := Up(ctx, c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Up = %v, want an error with %q", err, c.want)
			}
			nothingLeft(t, c.cfg.Dir)
		})
	}
	if _, err := Up(t.Context(), Config{N: 1}); !errors.Is(err, ErrInput) {
		t.Errorf("Up without a directory = %v, want ErrInput", err)
	}
}

// Up starts no more nodes once it is cancelled, and ends those that it has
// started.
func TestUpIsStoppedWhileItStarts(t *testing.T) {
	realProcesses(t)
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	told := errors.New("enough")
	var last Progress
	_, err := Up(ctx, Config{Dir: dir, N: 100, Binary: weir, Force: true, Progress: func(p Progress) {
		last = p
		if p.Started == 3 {
			cancel(told)
		}
	}})
	if !errors.Is(err, told) || !strings.Contains(err.Error(), "3 of 100 nodes started") {
		t.Errorf("Up = %v", err)
	}
	if last.Started != 3 || last.Nodes != 100 || last.Ready == 0 {
		t.Errorf("told %+v last", last)
	}
	nothingLeft(t, dir)
}

func TestOneNetworkPerDirectory(t *testing.T) {
	n := up(t, Config{N: 1})
	if _, err := Up(t.Context(), Config{N: 1, Binary: weir, Dir: n.Dir()}); !errors.Is(err, ErrBusy) {
		t.Errorf("second Up = %v, want ErrBusy", err)
	}
	if !n.Alive("n1") {
		t.Error("the second Up has ended the first network")
	}
}

// Another process may end a network and start a new one in its place: closing
// the first must not touch the second.
func TestCloseLeavesASuccessorAlone(t *testing.T) {
	old := up(t, Config{N: 1})
	other, err := Open(old.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil || !old.Alive("n1") {
		t.Fatalf("Close of a Network that is not owned = %v, and must do nothing", err)
	}
	if err := other.Down(); err != nil {
		t.Fatal(err)
	}
	gone(t, old.Nodes())
	next := up(t, Config{N: 1, Dir: old.Dir()})
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(next.Dir()); err != nil || !next.Alive("n1") {
		t.Errorf("the next network is damaged: %v", err)
	}
}

func TestNodesHearNothingOfOurEnvironment(t *testing.T) {
	t.Setenv("WEIR_SESSION_LIMIT", "1")
	t.Setenv("WEIR_HTTP", "nonsense")
	n := up(t, Config{N: 1})
	if s := n.Status(t.Context())[0]; s.Sessions.Limit == 1 {
		t.Error("the node has read WEIR_SESSION_LIMIT from our environment")
	}
	resp, err := http.Get(n.Node("n1").HTTP + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
}

func TestUnknownNode(t *testing.T) {
	n := &Network{state: state{Nodes: []Node{{Name: "n1"}, {Name: "n2"}}}}
	for _, f := range []func(string) error{n.Kill, n.Pause, n.Resume} {
		if err := f("n3"); !errors.Is(err, ErrInput) || !strings.Contains(err.Error(), "there are n1 to n2") {
			t.Errorf("error %v does not say which nodes there are", err)
		}
	}
	if n.Alive("n3") || !slices.Equal([]string{n.Nodes()[0].Name, n.Nodes()[1].Name}, []string{"n1", "n2"}) {
		t.Error("an unknown node is alive")
	}
}
