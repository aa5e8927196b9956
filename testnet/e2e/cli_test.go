package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"weir/dht"
)

// cleanEnv is the environment without weir's own variables.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WEIR_") })
}

// Exit codes, as documented.
const (
	ok           = 0
	failure      = 1
	noConnection = 2
	badInput     = 3
	refused      = 4
)

type ran struct {
	code        int
	out, errout string
}

// cli runs weir to its end, without interrupting it.
func cli(t *testing.T, args ...string) ran {
	t.Helper()
	return cliIn(t, nil, args...)
}

// cliIn is cli with further variables of the environment.
func cliIn(t *testing.T, environment []string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, weir, args...)
	cmd.Env = append(cleanEnv(), environment...)
	var out, errout bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errout
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("weir %s has not ended: %s%s", strings.Join(args, " "), &out, &errout)
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{cmd.ProcessState.ExitCode(), out.String(), errout.String()}
}

// fails runs weir, which must exit with code and print all of parts to standard
// error, in one line.
func fails(t *testing.T, code int, parts []string, args ...string) {
	t.Helper()
	r := cli(t, args...)
	if r.code != code {
		t.Errorf("weir %s: exit code %d, want %d: %s", strings.Join(args, " "), r.code, code, r.errout)
	}
	last := strings.TrimSpace(r.errout)
	if i := strings.LastIndexByte(last, '\n'); i >= 0 {
		last = last[i+1:]
	}
	says(t, last, append(parts, "weir")...)
	if strings.Contains(r.errout, "panic") || strings.Contains(r.errout, "goroutine ") {
		t.Errorf("weir %s: %s", strings.Join(args, " "), r.errout)
	}
}

// nodeArgs runs a node on free ports.
func nodeArgs(t *testing.T, more ...string) []string {
	return append([]string{"node", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--media-port", "0", "--listen", "/ip4/127.0.0.1/tcp/0"}, more...)
}

func TestNodeThatCannotStart(t *testing.T) {
	w := up(t, 1, nil)
	w.witness(w.n(1), w.n(1))
	running := w.n(1)
	taken := func(url string) string { return strings.TrimPrefix(url, "http://") }
	withoutID, _, _ := strings.Cut(running.P2P[0], "/p2p/")
	listens := running.P2P[slices.IndexFunc(running.P2P, func(a string) bool { return strings.Contains(a, "/tcp/") })]
	listens, _, _ = strings.Cut(listens, "/p2p/")

	corrupt := t.TempDir()
	key := filepath.Join(corrupt, "identity.key")
	if err := os.WriteFile(key, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		flags []string
		code  int
		says  []string
	}{
		"the HTTP port is busy":            {[]string{"--http", taken(running.HTTP)}, failure, []string{"--http", "in use", "port 0"}},
		"the admin port is busy":           {[]string{"--admin", taken(running.Admin)}, failure, []string{"--admin", "in use", "port 0"}},
		"the media port is busy":           {[]string{"--media-port", port(t, running.Media)}, failure, []string{"--media-port", "in use"}},
		"the libp2p port is busy":          {[]string{"--listen", listens}, failure, []string{listens, "in use"}},
		"the identity is corrupt":          {[]string{"--data-dir", corrupt}, failure, []string{key}},
		"the data is in a file":            {[]string{"--data-dir", key}, failure, []string{key}},
		"a bootstrap without peer ID":      {[]string{"--bootstrap", withoutID}, badInput, []string{withoutID, "/p2p/"}},
		"a bootstrap that is no address":   {[]string{"--bootstrap", "localhost:4001"}, badInput, []string{"localhost:4001"}},
		"HTTP for everybody":               {[]string{"--http", "0.0.0.0:0"}, badInput, []string{"--http 0.0.0.0:0", "other machines", "loopback", "--insecure-open"}},
		"admin for everybody":              {[]string{"--admin", ":0"}, badInput, []string{"--admin :0", "other machines", "--insecure-open"}},
		"media for everybody":              {[]string{"--media-port", "0.0.0.0:0"}, badInput, []string{"--media-port 0.0.0.0:0", "--insecure-open"}},
		"libp2p for everybody":             {[]string{"--listen", "/ip4/0.0.0.0/tcp/0"}, badInput, []string{"--listen /ip4/0.0.0.0/tcp/0", "--insecure-open"}},
		"a name that resolves to anything": {[]string{"--http", "example.com:0"}, badInput, []string{"--http example.com:0", "--insecure-open"}},
		"no multiaddr":                     {[]string{"--listen", "127.0.0.1:4001"}, badInput, []string{"--listen", "want for example /ip4/"}},
		"an unknown flag":                  {[]string{"--no-such-flag"}, badInput, []string{"no-such-flag"}},
		"an argument":                      {[]string{"here"}, badInput, []string{"takes no arguments", `"here"`}},
		"an unknown overflow":              {[]string{"--overflow", "shrug"}, badInput, []string{"--overflow", "redirect, relay or refuse"}},
		"an unknown log level":             {[]string{"--log-level", "loud"}, badInput, []string{"--log-level loud", "debug, info, warn or error"}},
		"an unknown log format":            {[]string{"--log-format", "xml"}, badInput, []string{"--log-format xml", "text or json"}},
		"a limit below zero":               {[]string{"--session-limit", "-1"}, badInput, []string{"below 0", "give 0 for none"}},
		"a limit that is no number":        {[]string{"--session-limit", "many"}, badInput, []string{"session-limit"}},
		"an uplink without sense":          {[]string{"--uplink-limit", "fast"}, badInput, []string{"--uplink-limit", "5mbps"}},
		"more CPU than there is":           {[]string{"--cpu-limit", "2"}, badInput, []string{"--cpu-limit 2", "0 to 1"}},
		"a fan-out of none":                {[]string{"--fanout", "0"}, badInput, []string{"--fanout", "at least 1"}},
	} {
		t.Run(name, func(t *testing.T) { fails(t, c.code, c.says, nodeArgs(t, c.flags...)...) })
	}
	if b, err := os.ReadFile(key); err != nil || string(b) != "not a key" {
		t.Errorf("the corrupt identity is now %q, %v; want it left alone", b, err)
	}
}

func TestBadCommands(t *testing.T) {
	nobody := freePort(t)
	for name, c := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"an unknown command":              {[]string{"frobnicate"}, badInput, []string{`"frobnicate"`, "weir --help"}},
		"no node at the admin address":    {[]string{"status", "--admin", nobody}, noConnection, []string{nobody, "is it running", "--admin"}},
		"an admin address that is none":   {[]string{"status", "--admin", "http://"}, badInput, []string{"--admin", "HOST:PORT"}},
		"records of nobody's node":        {[]string{"records", "list", "--admin", nobody}, noConnection, []string{nobody, "is it running"}},
		"a bootstrap without peer ID":     {[]string{"records", "list", "--bootstrap", "/ip4/127.0.0.1/tcp/4001"}, badInput, []string{"/p2p/"}},
		"a bootstrap that is not there":   {[]string{"records", "list", "--bootstrap", "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGeYejmCRfjCkyaueQiSbs4H9JeggCmtvwJf68KjZLqRJ"}, noConnection, []string{"bootstrap", "check the addresses", "--network"}},
		"records of no peer":              {[]string{"records", "get", "--admin", nobody}, badInput, []string{"one peer ID", "weir peers"}},
		"records of what is no peer":      {[]string{"records", "get", "--admin", nobody, "me"}, badInput, []string{"one peer ID", "weir peers"}},
		"a record file that is not there": {[]string{"records", "verify", "/no/such/file"}, badInput, []string{"/no/such/file"}},
		"the tree of no stream":           {[]string{"streams", "tree", "--admin", nobody}, badInput, []string{"name of one stream"}},
		"publishing nothing":              {[]string{"publish", "http://" + nobody + "/whip/x"}, badInput, []string{"--pattern"}},
		"publishing to nobody":            {[]string{"publish", "--pattern", "http://" + nobody + "/whip/x"}, noConnection, []string{nobody}},
		"viewing what is no URL":          {[]string{"view", "demo"}, badInput, []string{"http://"}},
		"benching by the former words":    {[]string{"bench", "cascade", "--nodes", "5"}, badInput, []string{"weir-lab bench", "make lab"}},
		"simulating by the former words":  {[]string{"testnet", "sim"}, badInput, []string{"weir-lab sim"}},
		"a testnet too large":             {[]string{"testnet", "up", "-n", "100000", "--dir", filepath.Join(t.TempDir(), "new")}, badInput, []string{"100000 more nodes need about", "GB of memory", "--force"}},
	} {
		t.Run(name, func(t *testing.T) { fails(t, c.code, c.says, c.args...) })
	}
}

// freePort is an address without a listener.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// port is the port of addr.
func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// reads runs weir, which must succeed, and returns its output.
func reads(t *testing.T, args ...string) string {
	t.Helper()
	r := cli(t, args...)
	if r.code != ok {
		t.Fatalf("weir %s: exit code %d: %s%s", strings.Join(args, " "), r.code, r.out, r.errout)
	}
	return r.out
}

func TestInspection(t *testing.T) {
	w := up(t, 3, func(i int) []string { return []string{"--region", []string{"north", "south", "west"}[i-1]} })
	a, b := w.n(1), w.n(2)
	w.witness(a, b)
	admin := func(args ...string) []string { return append(args, "--admin", a.Admin) }

	out := reads(t, admin("status")...)
	says(t, out, a.PeerID.String(), "network", "sessions", "stress", "cpu", "uplink", b.PeerID.String()[44:], "witness")
	out = reads(t, admin("peers")...)
	says(t, out, b.PeerID.String(), w.n(3).PeerID.String(), "yes")
	tree := ""
	eventually(t, "origin and relay are in the tree", func() bool {
		tree = cli(t, "streams", "tree", "--admin", a.Admin, "witness").out
		return strings.Contains(tree, "relay") && strings.Contains(tree, "origin")
	})
	says(t, tree, "witness", a.HTTP, b.HTTP, "└─")
	says(t, reads(t, admin("streams", "list")...), "witness", "video/VP8", "audio/opus")
	fails(t, failure, []string{`"nobody"`, "weir streams list"}, "streams", "tree", "--admin", a.Admin, "nobody")

	out = reads(t, admin("select", "--explain")...)
	says(t, out, "need", "found", "asked", "SCORE", "headroom", "best is")
	fails(t, failure, []string{"no node would be chosen"}, admin("select", "--need", "500gbps")...)
	fails(t, badInput, []string{"5mbps"}, admin("select", "--need", "much")...)
	fails(t, badInput, []string{"cascade", "stream"}, admin("select", "--purpose", "cascade")...)
	fails(t, badInput, []string{"view"}, admin("select", "--purpose", "eat")...)

	// The output with --json is the API's answer.
	for _, args := range [][]string{{"status"}, {"peers"}, {"records", "list"}, {"streams", "list"}, {"select"}, {"records", "verify"}} {
		if out := reads(t, admin(append(args, "--json")...)...); !json.Valid([]byte(out)) {
			t.Errorf("weir %s --json: %s", strings.Join(args, " "), out)
		}
	}
}

func TestRecords(t *testing.T) {
	t.Parallel()
	w := up(t, 3, nil)
	a, b := w.n(1), w.n(2)
	w.witness(a, a, b)
	eventually(t, "both carriers have a record", func() bool { return len(a.carriers(t, "witness")) == 2 })
	for name, through := range map[string][]string{
		"through a node": {"--admin", a.Admin},
		"by itself":      {"--bootstrap", a.P2P[0]},
	} {
		t.Run(name, func(t *testing.T) {
			with := func(args ...string) []string { return append(args, through...) }
			out := reads(t, with("records", "list")...)
			for i := 1; i <= 3; i++ {
				says(t, out, w.n(i).HTTP, w.n(i).PeerID.String()[44:], "active")
			}
			out = reads(t, with("records", "list", "--stream", "witness")...)
			says(t, out, a.HTTP, b.HTTP)
			if strings.Contains(out, w.n(3).HTTP) {
				t.Errorf("n3 does not carry the stream, but: %s", out)
			}
			out = reads(t, with("records", "verify")...)
			if strings.Count(out, "good") != 3 || strings.Contains(out, "BAD") {
				t.Errorf("verify: %s", out)
			}
			says(t, out, "SIGNER = NODE", "SEQ", "AGE", "TTL LEFT")

			file := filepath.Join(t.TempDir(), "record")
			out = reads(t, append(with("records", "get", "--out", file), b.PeerID.String())...)
			says(t, out, b.PeerID.String(), `"seq"`, `"uplink"`, "bytes sealed, good")
			says(t, reads(t, "records", "verify", file), "good", b.PeerID.String()[44:])

			var list struct {
				Records []struct{ Valid bool }
				Hearing dht.Hearing
			}
			if err := json.Unmarshal([]byte(reads(t, with("records", "list", "--json")...)), &list); err != nil || len(list.Records) != 3 || !list.Hearing.Enough() {
				t.Errorf("--json: %d records, heard %+v, %v", len(list.Records), list.Hearing, err)
			}
			watch(t, with("records", "watch")...)
		})
	}

	// Invalid records are reported as such.
	good := filepath.Join(t.TempDir(), "record")
	reads(t, "records", "get", "--admin", a.Admin, "--out", good, b.PeerID.String())
	sealed, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		bytes []byte
		says  string
	}{
		"forged":   {append(slices.Clone(sealed[:len(sealed)-1]), sealed[len(sealed)-1]^1), "BAD"},
		"cut":      {sealed[:len(sealed)/2], "BAD"},
		"no more":  {nil, "BAD"},
		"too long": {append(slices.Clone(sealed), make([]byte, 2000)...), "BAD"},
	} {
		file := filepath.Join(t.TempDir(), "bad")
		if err := os.WriteFile(file, c.bytes, 0o600); err != nil {
			t.Fatal(err)
		}
		r := cli(t, "records", "verify", file)
		if r.code != failure {
			t.Errorf("%s: exit code %d, want %d: %s", name, r.code, failure, r.out)
		}
		says(t, r.out, c.says)
		says(t, r.errout, "1 of 1 records are bad")
	}

	// An expired record is still shown, with the reason.
	if err := w.Kill(w.n(3).Name); err != nil {
		t.Fatal(err)
	}
	within(t, 2*patience, "the one good record has run out", func() bool { return cli(t, "records", "verify", good).code == failure })
	says(t, cli(t, "records", "verify", good).out, "BAD", "expired", b.PeerID.String()[44:])

	// A node of another network is not joined.
	fails(t, noConnection, []string{`"other"`, "--network"}, "records", "list", "--network", "other", "--bootstrap", a.P2P[0])
	fails(t, badInput, []string{"no holder has a record"}, "records", "get", "--admin", a.Admin, "12D3KooWGeYejmCRfjCkyaueQiSbs4H9JeggCmtvwJf68KjZLqRJ")
}

// watch runs a command that shows records until it is interrupted; it must exit
// with 0.
func watch(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command(weir, args...)
	cmd.Env = cleanEnv()
	var out syncBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	eventually(t, "what there is, and then something new, is shown", func() bool {
		_, news, synced := strings.Cut(out.String(), "-- that is all there is")
		return synced && strings.Contains(news, "seq")
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("weir %s, interrupted: %v\n%s", strings.Join(args, " "), err, out.String())
		}
	case <-time.After(patience):
		t.Errorf("weir %s does not end when it is interrupted", strings.Join(args, " "))
	}
}

// Refusals by a node, as publish and view print them.
func TestRefusedByTheServer(t *testing.T) {
	w := up(t, 1, only(1, "--session-limit", "2"))
	n := w.n(1)
	fails(t, refused, []string{"409", "not live", "try again"}, "view", n.whep("nothing"))
	fill(t, n, "demo")
	fails(t, refused, []string{"503", "2 of 2", "retry after"}, "view", n.whep("demo"))
	fails(t, refused, []string{"503", "2 of 2", "retry after"}, "publish", "--pattern", n.whip("other"))
	fails(t, refused, []string{"403", "ticket"}, "view", n.whep("demo")+"?ticket=x")
}

// A node ends normally at a signal, and removes its ready file.
func TestNodeEndsInGoodOrder(t *testing.T) {
	w := up(t, 2, nil)
	ends, stays := w.n(1), w.n(2)
	w.witness(stays, stays)
	publish(t, ends.whip("demo"))
	stays.finds(t, "demo")
	v := view(t, stays.whep("demo"))
	ready := filepath.Join(ends.Dir, "ready.json")
	if _, err := os.Stat(ready); err != nil {
		t.Fatal(err)
	}
	if err := w.Signal(ends.Name, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the node has ended", func() bool { return !w.Alive(ends.Name) })
	if _, err := os.Stat(ready); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file: %v, want it gone", err)
	}
	log, err := os.ReadFile(ends.Log)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log, []byte("level=ERROR")) || bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("did not close")) {
		t.Errorf("its log: %s", log)
	}
	eventually(t, "its viewers elsewhere are told", func() bool { return isClosed(v.Done()) })
	eventually(t, "its records are gone", func() bool { return len(known(t, stays)) == 1 })
}

// A syncBuffer is a bytes.Buffer that a process writes to while a test reads.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
