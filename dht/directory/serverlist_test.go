package directory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"weir/dht/dhttest"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// Two peer IDs.
const (
	idA = "12D3KooWGeYejmCRfjCkyaueQiSbs4H9JeggCmtvwJf68KjZLqRJ"
	idB = "12D3KooWPkc2XVBYk3sz7kHULc9FiDEXpdamRHmw9FQtqUwGdprK"
)

func TestParseServers(t *testing.T) {
	list, err := ParseServers("servers", []byte("# brokers\r\n\r\n"+
		"/ip4/192.0.2.1/tcp/4001/p2p/"+idA+" # the first\r\n"+
		"\t/dns4/b.example.org/udp/4001/quic-v1/p2p/"+idB+"\n"+
		"/ip4/192.0.2.1/udp/4001/quic-v1/p2p/"+idA+"\n"+
		"/ip4/192.0.2.1/tcp/4001/p2p/"+idA))
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].ID.String() != idA || list[1].ID.String() != idB || len(list[0].Addrs) != 2 || len(list[1].Addrs) != 1 {
		t.Errorf("got %v, want both peers once, in order, the first with two addresses", list)
	}
	for name, content := range map[string]string{"nothing": "", "comments only": "# none yet\n\n"} {
		if list, err := ParseServers("servers", []byte(content)); err != nil || len(list) != 0 {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

func TestParseServersNamesTheLine(t *testing.T) {
	good := "/ip4/192.0.2.1/tcp/4001/p2p/" + idA + "\n"
	var many, addrs strings.Builder
	for range maxServers + 1 {
		fmt.Fprintf(&many, "/ip4/192.0.2.1/tcp/4001/p2p/%s\n", dhttest.ID(t, dhttest.Key(t)))
	}
	for i := range maxServerAddrs + 1 {
		fmt.Fprintf(&addrs, "/ip4/192.0.2.1/tcp/%d/p2p/%s\n", i+1, idA)
	}
	for _, c := range []struct{ name, content, want string }{
		{"host and port", good + "\n192.0.2.1:4001\n", `servers:3: server address "192.0.2.1:4001" is not a multiaddr such as`},
		{"no peer ID", good + "/ip4/192.0.2.1/tcp/4001\n", "servers:2: server address"},
		{"no address", "/p2p/" + idA, "says who but not where"},
		{"two on a line", strings.TrimSpace(good) + " " + good, "servers:1:"},
		{"a line without end", good + strings.Repeat("x", maxServerLine+1), "servers:2: 1025 bytes"},
		{"too long", strings.Repeat("#\n", maxServerFile/2+1), "servers: more than 1048576 bytes"},
		{"too many", many.String(), "servers:4097: more than 4096 servers"},
		{"too many addresses", addrs.String(), "servers:17: more than 16 addresses of " + idA},
	} {
		if _, err := ParseServers("servers", []byte(c.content)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %.300v, want %q", c.name, err, c.want)
		}
	}
}

func FuzzParseServers(f *testing.F) {
	f.Add([]byte("/ip4/192.0.2.1/tcp/4001/p2p/" + idA + " # one\n\n/ip4/192.0.2.2/tcp/1/p2p/" + idB + "\n"))
	f.Add([]byte("/ip4/192.0.2.1/tcp/4001/p2p/" + idA + "\r\n/ip4/192.0.2.1/udp/1/quic-v1/p2p/" + idA))
	f.Add([]byte("/ip6/::1/tcp/0\n"))
	f.Add([]byte("#\x00/p2p/" + idA))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseServers("servers", b)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "servers:") || len(err.Error()) > 8<<10 {
				t.Fatalf("error %.200q", err)
			}
			return
		}
		var again bytes.Buffer
		seen := map[peer.ID]bool{}
		for _, ai := range list {
			if seen[ai.ID] || len(ai.Addrs) == 0 || len(ai.Addrs) > maxServerAddrs {
				t.Fatalf("%v is in %v twice, or nowhere", ai, list)
			}
			seen[ai.ID] = true
			addrs, err := peer.AddrInfoToP2pAddrs(&ai)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range addrs {
				fmt.Fprintln(&again, a)
			}
		}
		same, err := ParseServers("servers", again.Bytes())
		if err != nil || len(same) != len(list) {
			t.Fatalf("written and read again: %v, %v; was %v", same, err, list)
		}
		for i := range list {
			if list[i].ID != same[i].ID || !slices.EqualFunc(list[i].Addrs, same[i].Addrs, multiaddr.Multiaddr.Equal) {
				t.Fatalf("written and read again: %v, was %v", same[i], list[i])
			}
		}
	})
}

// Whatever happens to the file, the last valid list stays in force, and each
// fault is logged once.
func TestServerListIsReadAgain(t *testing.T) {
	line := func(port int, id string) string { return fmt.Sprintf("/ip4/192.0.2.1/tcp/%d/p2p/%s\n", port, id) }
	path := filepath.Join(t.TempDir(), "servers")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	a, err := peer.Decode(idA)
	if err != nil {
		t.Fatal(err)
	}
	fixed := []peer.AddrInfo{{ID: a, Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.9/tcp/1")}}}
	var log logBuffer
	list, err := NewServerList(fixed, path, slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var changes atomic.Int64
		done := make(chan error, 1)
		go func() { done <- list.Run(ctx, func() { changes.Add(1) }) }()
		step := func(what string, servers, addrs int, told int64, warned int) {
			t.Helper()
			time.Sleep(5 * serverFileCheck)
			synctest.Wait()
			got := list.Servers()
			if len(got) != servers || len(got[0].Addrs) != addrs {
				t.Errorf("%s: %v, want %d servers, the first with %d addresses", what, got, servers, addrs)
			}
			if changes := changes.Load(); changes != told {
				t.Errorf("%s: told of %d changes, want %d", what, changes, told)
			}
			if n := strings.Count(log.String(), "level=WARN"); n != warned {
				t.Errorf("%s: %d warnings, want %d: %s", what, n, warned, log.String())
			}
		}
		step("nothing in it", 1, 1, 0, 0)
		write(line(1, idB) + line(2, idA))
		step("two more addresses", 2, 2, 1, 0)
		write(line(1, idB) + "nonsense\n")
		step("a fault", 2, 2, 1, 1)
		if !strings.Contains(log.String(), path+":2: ") {
			t.Errorf("the warning does not name the line: %s", log.String())
		}
		write(line(1, idA)) // of the same length as the next
		step("one less", 1, 2, 2, 1)
		write(line(2, idA))
		step("another port", 1, 2, 3, 1)
		if got := list.Servers()[0].Addrs[1].String(); got != "/ip4/192.0.2.1/tcp/2" {
			t.Errorf("a change that leaves the length is not seen: %s", got)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		step("no file", 1, 2, 3, 2)
		write(line(1, idB))
		step("a file again", 2, 1, 4, 2)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v, want the context's error", err)
		}
	})
}

// logBuffer is a bytes.Buffer that may be written and read concurrently.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestServerListThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewServerList(nil, dir, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a directory: %v", err)
	}
	if _, err := NewServerList(nil, filepath.Join(dir, "none"), nil); err == nil || !strings.Contains(err.Error(), "create it") {
		t.Errorf("no file: %v", err)
	}
}
