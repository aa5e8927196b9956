// Package e2e tests weir from outside: every node is a process of the built
// binary, media is real, and the tests check what a client, an operator or
// another node's viewer would see.
package e2e

import (
	"bufio"
	"bytes"
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
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/dht"
	"weir/sfu"
	"weir/sfu/client"
	"weir/testnet"
)

// weir is the binary under test, built once.
var weir string

func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		fmt.Println("skipped under -short: every test here starts processes")
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
	dir, err := os.MkdirTemp("", "weir-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	weir = filepath.Join(dir, "weir")
	if out, err := exec.Command("go", "build", "-o", weir, "weir/cmd/weir").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build weir: %w\n%s", err, out)
	}
	// Tests that mostly wait are parallel: more of them at once than there are
	// CPUs.
	if err := flag.Set("test.parallel", "4"); err != nil {
		return 0, err
	}
	code := m.Run()
	if code == 0 {
		err = goleak.Find()
	}
	return code, err
}

// inTime fails unless all of took, except for the slowest, are at most most,
// and the slowest is at most three times as long: a busy machine causes a delay
// now and then, a defect always.
func inTime(t *testing.T, what string, most time.Duration, took []time.Duration) {
	t.Helper()
	took = slices.Sorted(slices.Values(took))
	if n := len(took); n > 1 && took[n-2] > most || took[n-1] > 3*most {
		t.Errorf("%s: took %v, want at most %v", what, took, most)
	}
}

// patience bounds every wait for something that must happen.
const patience = 40 * time.Second

// A world is a network for a test.
type world struct {
	t *testing.T
	*testnet.Network
}

// up starts n nodes with further flags for each, numbered from 1.
func up(t *testing.T, n int, flags func(i int) []string) *world {
	t.Helper()
	return upWith(t, testnet.Config{N: n, NodeFlags: flags})
}

// upWith starts the nodes of a network in a directory of its own.
func upWith(t *testing.T, cfg testnet.Config) *world {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	cfg.Binary = weir
	net, err := testnet.Up(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t, net}
	t.Cleanup(func() {
		if err := net.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			for _, node := range net.Nodes() {
				b, _ := os.ReadFile(node.Log)
				t.Logf("the log of %s ends:\n%s", node.Name, b[max(0, len(b)-2000):])
			}
		}
	})
	return w
}

// only gives flags to node i.
func only(i int, flags ...string) func(int) []string {
	return func(j int) []string {
		if i == j {
			return flags
		}
		return nil
	}
}

// see waits until all nodes see each other's records.
func (w *world) see(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := w.AwaitRecords(ctx); err != nil {
		t.Fatal(err)
	}
}

// n is the i-th node, from 1.
func (w *world) n(i int) node { return node{w.Node(fmt.Sprintf("n%d", i))} }

type node struct{ testnet.Node }

func (n node) whip(stream string) string { return n.HTTP + "/whip/" + stream }
func (n node) whep(stream string) string { return n.HTTP + "/whep/" + stream }
func (n node) serves(url string) bool    { return strings.HasPrefix(url, n.HTTP+"/") }

// The admin API's answers; a node that does not answer fails the test.

func (n node) status(t *testing.T) api.Status        { return ask[api.Status](t, n, "/status") }
func (n node) links(t *testing.T) []sfu.LinkStatus   { return ask[[]sfu.LinkStatus](t, n, "/links") }
func (n node) decisions(t *testing.T) []dht.Decision { return ask[[]dht.Decision](t, n, "/decisions") }
func (n node) sessions(t *testing.T) []sfu.SessionStatus {
	return ask[[]sfu.SessionStatus](t, n, "/sessions")
}

// carriers lists the carriers of stream, as found by n; none while that is not
// known.
func (n node) carriers(t *testing.T, stream string) []peer.ID {
	var ids []peer.ID
	var list struct {
		Records []struct {
			Node  peer.ID
			Valid bool
		}
	}
	if err := n.Get(context.Background(), "/records?stream="+stream, &list); err != nil {
		t.Logf("%s: carriers of %s: %v", n.Name, stream, err)
	}
	for _, r := range list.Records {
		if r.Valid {
			ids = append(ids, r.Node)
		}
	}
	return ids
}

func ask[T any](t *testing.T, n node, path string) (v T) {
	t.Helper()
	if err := n.Get(context.Background(), path, &v); err != nil { // usable also in a clean-up
		t.Fatalf("%s: %v", n.Name, err)
	}
	return v
}

// eventually polls cond until it holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	within(t, patience, what, cond)
}

func within(t *testing.T, most time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", most, what)
		}
	}
}

// finds waits until n finds a carrier of stream.
func (n node) finds(t *testing.T, stream string) {
	t.Helper()
	eventually(t, n.Name+" finds "+stream, func() bool { return len(n.carriers(t, stream)) > 0 })
}

// A publisher publishes the built-in clip until the test ends or stop is called.
type publisher struct {
	*client.Publisher
	stop func()
}

func publish(t *testing.T, url string) *publisher {
	t.Helper()
	p, err := tryPublish(t, url)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tryPublish(t *testing.T, url string) (*publisher, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := client.Publish(ctx, client.PublishConfig{URL: url, Media: clip})
	if err != nil {
		return nil, err
	}
	running, end := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		if err := p.Run(running); !errors.Is(err, context.Canceled) {
			t.Logf("the publisher at %s: %v", p.NodeURL(), err)
		}
	}()
	stop := sync.OnceFunc(func() {
		end()
		<-ran
		_ = p.Close() // its node may have ended
	})
	t.Cleanup(stop)
	return &publisher{p, stop}, nil
}

var clip = client.Pattern()

// view views url and returns once a frame has come.
func view(t *testing.T, url string) *client.Viewer {
	t.Helper()
	v, err := tryView(t, url)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tryView(t *testing.T, url string) (*client.Viewer, error) {
	return tryViewBy(t, client.ViewConfig{URL: url})
}

// viewBy views with cfg, and returns once a frame has come.
func viewBy(t *testing.T, cfg client.ViewConfig) *client.Viewer {
	t.Helper()
	v, err := tryViewBy(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func tryViewBy(t *testing.T, cfg client.ViewConfig) (*client.Viewer, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	v, err := client.View(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = v.Close() }) // its node may have ended
	select {
	case <-v.FirstFrame():
		return v, nil
	case <-v.Done():
		return nil, fmt.Errorf("view %s: the connection was lost before a frame came", cfg.URL)
	case <-ctx.Done():
		return nil, fmt.Errorf("view %s: no frame came within %v", cfg.URL, patience)
	}
}

// flows waits until all of viewers have received further frames.
func flows(t *testing.T, viewers ...*client.Viewer) {
	t.Helper()
	before := make([]client.Stats, len(viewers))
	for i, v := range viewers {
		before[i] = v.Stats()
	}
	for i, v := range viewers {
		eventually(t, "frames flow at "+before[i].URL, func() bool {
			now := v.Stats()
			return now.Frames >= before[i].Frames+10 && now.Packets >= before[i].Packets+20
		})
	}
}

// A witness is a publisher and viewers that are unrelated to a test's actions,
// and must not be affected by them.
type witness struct {
	viewers []*client.Viewer
	dropped uint64 // datagrams dropped before the witness began; see kernelDrops
}

// maxGap is how long a witness may be without a packet. One comes every 20 ms;
// the rest allows for a busy machine. Loss is never allowed: every packet must
// arrive.
const maxGap = 3 * time.Second

// witness publishes at one node and views at others, and checks at the end of
// the test that no packet was lost. Its nodes must live until then.
func (w *world) witness(at node, viewing ...node) {
	w.t.Helper()
	publish(w.t, at.whip("witness"))
	wit := &witness{dropped: kernelDrops(w.t)}
	for _, n := range viewing {
		n.finds(w.t, "witness")
		v := view(w.t, n.whep("witness"))
		if !n.serves(v.NodeURL()) {
			w.t.Fatalf("the witness at %s was sent to %s", n.Name, v.NodeURL())
		}
		wit.viewers = append(wit.viewers, v)
	}
	w.t.Cleanup(func() { wit.undisturbed(w.t) })
}

func (w *witness) undisturbed(t *testing.T) {
	t.Helper()
	flows(t, w.viewers...)
	for _, v := range w.viewers {
		// A packet that is requested again (NACK) is not lost yet.
		deadline := time.Now().Add(patience)
		for v.Stats().Lost > kernelDrops(t)-w.dropped && time.Now().Before(deadline) && !isClosed(v.Done()) {
			flows(t, v)
		}
		dropped := kernelDrops(t) - w.dropped
		s := v.Stats()
		if s.Lost > 0 && s.Lost <= dropped {
			t.Logf("%d packets lost at %s, while this machine's kernel dropped %d datagrams that nobody had the time to read", s.Lost, s.URL, dropped)
		} else if s.Lost > 0 {
			for _, track := range s.Tracks {
				t.Errorf("somebody else's %s at %s: %d packets lost of %d, asked for %d times", track.Kind, s.URL, track.Lost, track.Packets, track.NACKs)
			}
		}
		if s.State != "connected" {
			t.Errorf("somebody else's session at %s is %s", s.URL, s.State)
		}
		for _, track := range s.Tracks {
			if track.LongestGap > maxGap || track.Resets > 0 || track.Backwards > 0 {
				t.Errorf("somebody else's %s at %s: longest gap %v, numbering began anew %d times, timestamps went back %d times",
					track.Kind, s.URL, track.LongestGap, track.Resets, track.Backwards)
			}
		}
	}
}

// kernelDrops counts the datagrams that the kernel has dropped because a
// socket's buffer, its memory or a CPU's backlog was full: the machine, not
// weir, is the cause if a process gets no CPU for that long. 0 if the kernel
// does not report it.
func kernelDrops(t *testing.T) (n uint64) {
	number := func(s string, base int) uint64 {
		n, err := strconv.ParseUint(s, base, 64)
		if err != nil {
			t.Fatalf("the kernel's counts of drops: %v", err)
		}
		return n
	}
	snmp, _ := os.ReadFile("/proc/net/snmp")
	var names []string
	for line := range strings.Lines(string(snmp)) {
		fields := strings.Fields(line)
		if fields[0] != "Udp:" {
			continue
		}
		if i := slices.Index(names, "InErrors"); i >= 0 && i < len(fields) {
			n += number(fields[i], 10)
		}
		names = fields
	}
	softnet, _ := os.ReadFile("/proc/net/softnet_stat")
	for line := range strings.Lines(string(softnet)) { // one per CPU
		if fields := strings.Fields(line); len(fields) > 1 {
			n += number(fields[1], 16)
		}
	}
	return n
}

// continuous fails the test if the packets received by v have a gap.
func continuous(t *testing.T, v *client.Viewer) {
	t.Helper()
	for _, track := range v.Stats().Tracks {
		if track.Resets > 0 || track.Backwards > 0 {
			t.Errorf("%s at %s: numbering began anew %d times, timestamps went back %d times", track.Kind, v.NodeURL(), track.Resets, track.Backwards)
		}
	}
}

// An eventLog is a node's events, from its first one on.
type eventLog struct {
	mu  sync.Mutex
	all []sfu.Event
}

// follow reads n's events until the test ends.
func (n node) follow(t *testing.T) *eventLog {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.Admin+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	log := &eventLog{}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			var e sfu.Event
			if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok && json.Unmarshal(data, &e) == nil {
				log.mu.Lock()
				log.all = append(log.all, e)
				log.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return log
}

// of lists the events of a kind about a stream; an empty stream matches any.
func (l *eventLog) of(kind event.Kind, stream string) []sfu.Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []sfu.Event
	for _, e := range l.all {
		if e.Kind == kind && (stream == "" || e.Stream == stream) {
			found = append(found, e)
		}
	}
	return found
}

// refusal returns the server's answer in err.
func refusal(t *testing.T, err error) *client.Refused {
	t.Helper()
	var r *client.Refused
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want an answer that refuses", err)
	}
	return r
}

// says fails the test unless text contains every one of parts.
func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	if i := slices.IndexFunc(parts, func(p string) bool { return !strings.Contains(text, p) }); i >= 0 {
		t.Errorf("%q does not say %q", text, parts[i])
	}
}
