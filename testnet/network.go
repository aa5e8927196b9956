// Package testnet runs many weir nodes on one machine, as real processes on
// loopback: for demonstrations, for tests and for benchmarks.
//
// A test starts a network that ends with it, however the test ends:
//
//	n, err := testnet.Up(ctx, testnet.Config{Dir: t.TempDir(), N: 3, Binary: weir})
//	if err != nil {
//		t.Fatal(err)
//	}
//	t.Cleanup(func() { n.Close() })
//	whip := n.Node("n1").HTTP + "/whip/demo"
//
// Without Binary, nodes run this process's own executable, which is correct for
// the weir command only.
package testnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"weir/cmd/weir/api"
	"weir/dht/directory"
)

var (
	// ErrBusy means that a testnet runs in that directory already.
	ErrBusy = errors.New("testnet is running")
	// ErrNone means that there is no testnet in that directory.
	ErrNone = errors.New("no testnet")
	// ErrInput means that the arguments are wrong: a directory that is not for
	// a testnet, or a node that is not in it.
	ErrInput = errors.New("testnet")
)

const (
	defaultTimeout = time.Minute
	// grace is how long nodes may take to end normally.
	grace = 5 * time.Second
	// reapTime is how long the kernel may take to end a killed process.
	reapTime = 5 * time.Second
	// askTimeout bounds one request to a node.
	askTimeout = 5 * time.Second
	// asksAtOnce bounds the nodes that are queried concurrently.
	asksAtOnce = 8
)

// Config is the configuration of a network.
type Config struct {
	// Dir is the directory of logs, data and testnet.json. It is created; if it
	// exists, it must be empty or an earlier testnet's.
	Dir string
	// N is the number of nodes, named n1, n2, …; n1 is the bootstrap peer of
	// all others.
	N int

	// Discovery selects the holders of records; "": [directory.Kademlia]. In
	// the other modes each node is given the file "servers" in Dir, which lists
	// ready nodes: the first Brokers ones in [directory.Broker], else all.
	Discovery directory.Mode
	Brokers   int // 0: 1

	Regions   int                  // nodes are in r1, r2, … rRegions in turn; 0: in none
	Binary    string               // weir; default: this process's executable
	NodeFlags func(i int) []string // further flags of node i, from 1; they override testnet's own
	AddFlags  []string             // likewise, of every node that [Add] adds later
	Timeout   time.Duration        // of the whole of Up; default one minute
	TLS       bool                 // nodes speak https, by a development CA in Dir; see [OpenAuthority]
	Force     bool                 // even if the machine seems to have no room for that many
	Progress  func(Progress)       // receives Up's progress, one call at a time; may be nil
	Log       *slog.Logger         // default: discarded

	// Detach lets the nodes outlive this process. By default the kernel kills
	// them when it ends, and the Network must be closed.
	Detach bool
}

// Progress is the progress of a testnet's start.
type Progress struct {
	Nodes   int // in total
	Started int
	Ready   int
	Seeing  int // nodes that see the records of all
}

// A Node is one process of a Network.
type Node struct {
	Name   string  `json:"name"`
	PID    int     `json:"pid"`
	Start  string  `json:"start"` // identifies the process among all that ever have PID
	Region string  `json:"region,omitempty"`
	PeerID peer.ID `json:"peer_id,omitempty"`

	P2P   []string `json:"p2p,omitempty"`   // libp2p addresses with /p2p/ID
	HTTP  string   `json:"http,omitempty"`  // base URL of WHIP, WHEP and the console
	Admin string   `json:"admin,omitempty"` // base URL of the admin API
	Media string   `json:"media,omitempty"` // UDP address

	Dir string   `json:"dir"` // of its data
	Log string   `json:"log"` // file
	Arg []string `json:"arg"` // of the process, without its name

	Retired bool `json:"retired,omitempty"` // its process was meant to end by itself
}

// Network is a testnet: owned, if it comes from [Up] without Detach, or only
// referred to, if it comes from [Open]. Its methods are safe for concurrent
// use. Its only goroutine is one that an owned Network needs to keep a thread.
type Network struct {
	dir     string
	binary  string
	log     *slog.Logger
	starter *starter // nil if not owned

	progress *counter // nil but in Up

	mu    sync.Mutex
	state state
	own   map[string]*os.Process // children not yet waited for, by name

	ending sync.Once
	ended  error // result of ending the nodes
}

// Up starts cfg.N nodes and returns when all are ready and each sees the
// records of all. If one exits, the error has the end of its log; if Up fails,
// no process is left. The error wraps [ErrBusy] if a testnet runs in cfg.Dir.
// ctx bounds only the start.
func Up(ctx context.Context, cfg Config) (*Network, error) {
	if cfg.N < 1 {
		return nil, fmt.Errorf("%w of %d nodes: at least one is needed", ErrInput, cfg.N)
	}
	discovery, err := directory.ParseMode(string(cfg.Discovery))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	switch {
	case cfg.Brokers != 0 && !discovery.Brokers():
		return nil, fmt.Errorf("%w: there are brokers only where discovery is %s", ErrInput, directory.Broker)
	case cfg.Brokers < 0 || cfg.Brokers > cfg.N:
		return nil, fmt.Errorf("%w of %d nodes: %d of them cannot be brokers", ErrInput, cfg.N, cfg.Brokers)
	case discovery.Brokers():
		cfg.Brokers = max(cfg.Brokers, 1)
	}
	if !cfg.Force {
		if err := MeasureRoom().check(cfg.N, cfg.N); err != nil {
			return nil, err
		}
	}
	if cfg.Regions < 0 {
		return nil, fmt.Errorf("%w of %d regions", ErrInput, cfg.Regions)
	}
	if cfg.Dir == "" {
		return nil, fmt.Errorf("%w: no directory named", ErrInput)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	binary := cfg.Binary
	if binary == "" {
		if binary, err = os.Executable(); err != nil {
			return nil, err
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	unlock, err := claim(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()

	n := &Network{
		dir: dir, binary: binary, log: cfg.Log, own: map[string]*os.Process{},
		state: state{Version: stateVersion, Started: time.Now(), Binary: binary, Discovery: discovery, Brokers: cfg.Brokers, AddFlags: cfg.AddFlags, TLS: cfg.TLS},
	}
	n.progress = &counter{now: Progress{Nodes: cfg.N}, tell: cfg.Progress}
	defer func() { n.progress = nil }()
	if !cfg.Detach {
		n.starter = newStarter()
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not up after %v", timeout))
	defer cancel()
	if err := n.up(ctx, cfg); err != nil {
		if e := n.end(0); e != nil {
			err = errors.Join(err, e)
		}
		return nil, err
	}
	return n, nil
}

func (n *Network) up(ctx context.Context, cfg Config) error {
	if n.state.TLS {
		if err := secure(n.dir, time.Now()); err != nil {
			return err
		}
	}
	var join []string
	if n.state.listed() {
		if err := writeServers(n.dir, n.state); err != nil {
			return err
		}
		join = []string{"--discovery", string(n.state.Discovery), "--server-list", filepath.Join(n.dir, serverFile)}
	}
	for i := 1; i <= cfg.N; i++ {
		if ctx.Err() != nil {
			return fmt.Errorf("%d of %d nodes started: %w", i-1, cfg.N, context.Cause(ctx))
		}
		name := fmt.Sprintf("n%d", i)
		region := ""
		if cfg.Regions > 0 {
			region = fmt.Sprintf("r%d", (i-1)%cfg.Regions+1)
		}
		node := n.newNode(name, region, join)
		if cfg.NodeFlags != nil {
			node.Arg = append(node.Arg, cfg.NodeFlags(i)...)
		}
		if err := n.start(node); err != nil {
			return err
		}
		n.progress.add(Progress{Started: 1})
		if i > max(1, cfg.Brokers) {
			continue
		}
		if err := n.awaitReady(ctx, name); err != nil {
			return err
		}
		if n.state.listed() {
			if i <= cfg.Brokers {
				if err := n.awaitList(ctx, i); err != nil {
					return err
				}
			}
			continue // these nodes join by the list
		}
		for _, a := range n.Node(name).P2P {
			join = append(join, "--bootstrap", a)
		}
	}
	var work errgroup.Group
	for _, node := range n.Nodes()[max(1, cfg.Brokers):] {
		work.Go(func() error { return n.awaitReady(ctx, node.Name) })
	}
	if err := work.Wait(); err != nil {
		return err
	}
	return n.AwaitRecords(ctx)
}

// newNode returns a node that is not started yet, with its arguments.
func (n *Network) newNode(name, region string, join []string) Node {
	node := Node{Name: name, Region: region, Dir: filepath.Join(n.dir, name), Log: filepath.Join(n.dir, name, "log")}
	node.Arg = append([]string{"node",
		"--data-dir", node.Dir, "--ready-file", node.readyFile(), "--name", name, "--region", node.Region,
		"--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media-port", "0",
		"--stop-timeout", "0", // who ends a testnet does not wait for its viewers
	}, join...)
	if n.state.TLS {
		node.Arg = append(node.Arg, tlsArgs(n.dir)...)
	}
	return node
}

// awaitList waits until all nodes have read a list of that many servers. A
// broker refuses records until it knows that it is one.
func (n *Network) awaitList(ctx context.Context, servers int) error {
	for _, node := range n.Nodes() {
		err := n.await(ctx, node, func() (bool, error) {
			var told struct{ Servers int }
			return node.Get(ctx, "/status", &told) == nil && told.Servers == servers, nil
		})
		if err != nil {
			return fmt.Errorf("%s has not read the list of servers: %w", node.Name, err)
		}
	}
	return nil
}

func (n Node) readyFile() string { return filepath.Join(n.Dir, "ready.json") }

// start starts a process for node and adds it to the state, which is written at
// once, so that Open always finds every process.
func (n *Network) start(node Node) error {
	if err := os.MkdirAll(node.Dir, 0o755); err != nil {
		return err
	}
	if err := os.Remove(node.readyFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log, err := os.OpenFile(node.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	if !slices.Contains(node.Arg, "--listen") { // given twice, both would count
		node.Arg = slices.Concat(node.Arg, []string{"--listen", "/ip4/127.0.0.1/tcp/0", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"})
	}
	cmd := exec.Command(n.binary, node.Arg...)
	cmd.Env = nodeEnv()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's Ctrl-C is not for it
	start := cmd.Start
	if n.starter != nil {
		start = func() error { return n.starter.start(cmd) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("start %s: %w", node.Name, err)
	}
	proc, err := readProc(cmd.Process.Pid) // our child, so it exists even if it has ended
	if err != nil {
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		return fmt.Errorf("start %s: this system does not tell when a process began: %w", node.Name, err)
	}
	node.PID, node.Start = cmd.Process.Pid, proc.start
	n.log.Debug("node started", "node", node.Name, "pid", node.PID)

	n.mu.Lock()
	defer n.mu.Unlock()
	n.own[node.Name] = cmd.Process
	n.adopt()
	if i := n.index(node.Name); i >= 0 {
		n.state.Nodes[i] = node
	} else {
		n.state.Nodes = append(n.state.Nodes, node)
	}
	return writeState(n.dir, n.state)
}

// adopt adds the nodes that another process has meanwhile added to the same
// testnet. n.mu is held.
func (n *Network) adopt() {
	s, err := readState(n.dir)
	if err != nil || !s.Started.Equal(n.state.Started) {
		return
	}
	for _, node := range s.Nodes {
		if i := n.index(node.Name); i < 0 {
			n.state.Nodes = append(n.state.Nodes, node)
		} else if node.PID == n.state.Nodes[i].PID {
			n.state.Nodes[i] = node
		}
	}
}

// index of a node in the state, or -1. n.mu is held.
func (n *Network) index(name string) int {
	return slices.IndexFunc(n.state.Nodes, func(o Node) bool { return o.Name == name })
}

// awaitReady waits for the node's ready file and takes its addresses from it.
func (n *Network) awaitReady(ctx context.Context, name string) error {
	node := n.Node(name)
	err := n.await(ctx, node, func() (bool, error) {
		b, err := os.ReadFile(node.readyFile())
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		return true, json.Unmarshal(b, &struct {
			PeerID *peer.ID  `json:"peer_id"`
			P2P    *[]string `json:"p2p"`
			HTTP   *string   `json:"http"`
			Admin  *string   `json:"admin"`
			Media  *string   `json:"media"`
		}{&node.PeerID, &node.P2P, &node.HTTP, &node.Admin, &node.Media})
	})
	if err != nil {
		return fmt.Errorf("%s is not ready: %w", name, err)
	}
	n.progress.add(Progress{Ready: 1})
	n.log.Debug("node is ready", "node", name, "peer", node.PeerID, "http", node.HTTP)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.adopt()
	n.state.Nodes[n.index(name)] = node
	if n.state.listed() {
		if err := writeServers(n.dir, n.state); err != nil {
			return err
		}
	}
	return writeState(n.dir, n.state)
}

// await polls done until it reports true or an error, the node exits, or ctx ends.
func (n *Network) await(ctx context.Context, node Node, done func() (bool, error)) error {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if !alive(node.PID, node.Start) {
			return fmt.Errorf("it exited%s; the end of %s:\n%s", n.reap(node.Name), node.Log, logTail(node.Log))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// reap waits for a child that has ended, so that no zombie is left, and says
// how it ended, if known.
func (n *Network) reap(name string) string {
	n.mu.Lock()
	child := n.own[name]
	delete(n.own, name)
	n.mu.Unlock()
	if child == nil {
		return ""
	}
	s, err := child.Wait()
	if err != nil {
		return ""
	}
	return " (" + s.String() + ")"
}

// AwaitRecords returns when each node that is alive and not stopped sees a
// valid record of every such node, itself included.
func (n *Network) AwaitRecords(ctx context.Context) error {
	var running []Node
	for _, node := range n.Nodes() {
		if p, err := lookup(node.PID, node.Start); err == nil && p.state != 'T' {
			running = append(running, node)
		}
	}
	var work errgroup.Group
	work.SetLimit(asksAtOnce)
	for _, node := range running {
		work.Go(func() error {
			missing := []string{"all"}
			err := n.await(ctx, node, func() (bool, error) {
				seen, err := node.Records(ctx)
				if err != nil {
					return false, nil // not yet; if the node is ending, await notices
				}
				missing = nil
				for _, other := range running {
					if !slices.Contains(seen, other.PeerID) {
						missing = append(missing, other.Name)
					}
				}
				return len(missing) == 0, nil
			})
			if err != nil && ctx.Err() != nil {
				return fmt.Errorf("%s does not see the records of %s: %w", node.Name, strings.Join(missing, " "), err)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", node.Name, err)
			}
			n.progress.add(Progress{Seeing: 1})
			return nil
		})
	}
	return work.Wait()
}

// A counter reports the progress of Up. A nil one reports nothing.
type counter struct {
	tell func(Progress)

	mu  sync.Mutex
	now Progress
}

func (c *counter) add(more Progress) {
	if c == nil || c.tell == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now.Started += more.Started
	c.now.Ready += more.Ready
	c.now.Seeing += more.Seeing
	c.tell(c.now)
}

// Records returns the nodes whose records are valid, as seen by n.
func (n Node) Records(ctx context.Context) ([]peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	list, err := n.API().Records(ctx, "")
	if err != nil {
		return nil, err
	}
	var seen []peer.ID
	for _, r := range list.Records {
		if r.Valid {
			seen = append(seen, r.Node)
		}
	}
	return seen, nil
}

// asker is the HTTP client for nodes. It keeps no connections: a test would
// find them leaked, and a node that ends would wait for them.
var asker = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// API returns a client of the node's admin API.
func (n Node) API() api.Client { return api.Client{URL: n.Admin, HTTP: asker} }

// Get requests path, such as /status, from the node's admin API and decodes the
// answer into v, within a few seconds.
func (n Node) Get(ctx context.Context, path string, v any) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return n.API().Get(ctx, path, v)
}

// Open returns the testnet in dir, as it is, regardless of which process
// started it. The error wraps [ErrNone] if there is none.
func Open(dir string) (*Network, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s, err := readState(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s", ErrNone, dir)
	}
	if err != nil {
		return nil, err
	}
	return &Network{dir: dir, binary: s.Binary, log: slog.New(slog.DiscardHandler), state: s, own: map[string]*os.Process{}}, nil
}

// Authority is the file of the development CA that signed the nodes'
// certificate, or "" if they serve plain HTTP.
func (n *Network) Authority() string {
	if !n.state.TLS {
		return ""
	}
	return filepath.Join(n.dir, AuthorityFile)
}

// Dir returns the network's directory.
func (n *Network) Dir() string { return n.dir }

// Nodes returns all nodes, including dead ones, in the order of their start.
func (n *Network) Nodes() []Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.adopt()
	return slices.Clone(n.state.Nodes)
}

// Node returns the node of that name. It panics if there is none: names are
// known, n1 to nN.
func (n *Network) Node(name string) Node {
	node, err := n.find(name)
	if err != nil {
		panic(err)
	}
	return node
}

func (n *Network) find(name string) (Node, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.index(name) < 0 {
		n.adopt()
	}
	if i := n.index(name); i >= 0 {
		return n.state.Nodes[i], nil
	}
	return Node{}, fmt.Errorf("%w: no node %q: there are n1 to n%d", ErrInput, name, len(n.state.Nodes))
}

// Alive reports whether the node's process exists, stopped or not.
func (n *Network) Alive(name string) bool {
	node, err := n.find(name)
	return err == nil && alive(node.PID, node.Start)
}

// Signal sends sig to a node. The error wraps [os.ErrProcessDone] if its
// process has ended, even if another one has its pid now.
func (n *Network) Signal(name string, sig syscall.Signal) error {
	node, err := n.find(name)
	if err != nil {
		return err
	}
	if err := signal(node.PID, node.Start, sig); err != nil {
		return fmt.Errorf("%s, pid %d: %w", name, node.PID, err)
	}
	return nil
}

// Kill ends a node without warning (SIGKILL) and returns once it is gone.
func (n *Network) Kill(name string) error {
	if err := n.Signal(name, syscall.SIGKILL); err != nil {
		return err
	}
	if n.awaitEnd([]Node{n.Node(name)}, reapTime) > 0 {
		return fmt.Errorf("%s has not ended %v after it was killed", name, reapTime)
	}
	return nil
}

// Pause stops a node (SIGSTOP): its sockets stay open, and it does not answer.
func (n *Network) Pause(name string) error { return n.Signal(name, syscall.SIGSTOP) }

// Resume lets a paused node go on.
func (n *Network) Resume(name string) error { return n.Signal(name, syscall.SIGCONT) }

// Restart kills a node if it runs, and starts it again with the same flags and
// data: it keeps its peer ID, but gets other ports unless its flags fix them.
// It returns when the node is ready, which is before others see its new record.
func (n *Network) Restart(ctx context.Context, name string) error {
	if err := n.Kill(name); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	n.reap(name)
	if err := n.start(n.Node(name)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, defaultTimeout, fmt.Errorf("not ready after %v", defaultTimeout))
	defer cancel()
	return n.awaitReady(ctx, name)
}

// Down ends all nodes, normally if they do so within a few seconds, and removes
// testnet.json. Logs and data stay. It may be called more than once.
func (n *Network) Down() error {
	unlock, err := lock(n.dir)
	if err != nil {
		return err
	}
	defer unlock()
	return n.end(grace)
}

// Close kills all nodes of an owned Network and removes testnet.json: once it
// has returned, no process is left. It may be called more than once. A Network
// from [Open], or a detached one, is left alone.
func (n *Network) Close() error {
	if n.starter == nil {
		return nil
	}
	return n.end(0)
}

// end ends all nodes, at once or after a grace period for a normal exit.
func (n *Network) end(grace time.Duration) error {
	n.ending.Do(func() { n.ended = n.endNodes(grace) })
	return n.ended
}

func (n *Network) endNodes(grace time.Duration) error {
	nodes := n.Nodes() // including those added by other processes
	send := func(sig syscall.Signal) {
		for _, node := range nodes {
			if err := signal(node.PID, node.Start, sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
				n.log.Warn("node not signalled", "node", node.Name, "pid", node.PID, "err", err)
			}
		}
	}
	if grace > 0 {
		send(syscall.SIGTERM)
		send(syscall.SIGCONT) // a paused one receives signals then
		if left := n.awaitEnd(nodes, grace); left > 0 {
			n.log.Warn("nodes did not end by themselves", "nodes", left, "after", grace)
		}
	}
	send(syscall.SIGKILL)
	left := n.awaitEnd(nodes, reapTime)
	if len(n.Nodes()) > len(nodes) { // another process has added one meanwhile
		return n.endNodes(0)
	}
	if n.starter != nil {
		n.starter.close()
	}
	if left > 0 {
		return fmt.Errorf("%d nodes have not ended %v after they were killed", left, reapTime)
	}
	if s, err := readState(n.dir); err != nil || !s.Started.Equal(n.state.Started) {
		return nil // another process has ended the nodes, and may have started anew
	}
	return removeState(n.dir)
}

// awaitEnd waits until nodes have ended, at most for the given time, and
// returns how many have not.
func (n *Network) awaitEnd(nodes []Node, most time.Duration) (left int) {
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for deadline := time.Now().Add(most); ; <-tick.C {
		left = 0
		for _, node := range nodes {
			if alive(node.PID, node.Start) {
				left++
			} else {
				n.reap(node.Name)
			}
		}
		if left == 0 || time.Now().After(deadline) {
			return left
		}
	}
}
