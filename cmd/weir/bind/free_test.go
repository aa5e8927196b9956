package bind

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/multiformats/go-multiaddr"
)

// busyBelow returns a bind function for which all ports below free are taken;
// it appends the ports to tried.
func busyBelow(free int, tried *[]int) func(string) (string, error) {
	return func(addr string) (string, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return "", err
		}
		p, err := strconv.Atoi(port)
		if err != nil {
			return "", err
		}
		*tried = append(*tried, p)
		if p > 0 && p < free {
			return "", fmt.Errorf("%s is taken (%w)", addr, syscall.EADDRINUSE)
		}
		return addr, nil
	}
}

func TestBindFree(t *testing.T) {
	for _, tt := range []struct {
		name  string
		asked bool
		free  int
		want  string // "": an error
		tried []int
	}{
		{"a free port", false, 0, "127.0.0.1:8080", []int{8080}},
		{"one that is taken gives way", false, 8095, "127.0.0.1:8100", []int{8080, 8090, 8100}},
		{"one asked for by name does not", true, 8081, "", []int{8080}},
		{"any free one at last", false, 1 << 16, "127.0.0.1:0", nil},
	} {
		var tried []int
		var log bytes.Buffer
		got, err := Free(slog.New(slog.NewTextHandler(&log, nil)), "--http", "127.0.0.1:8080", tt.asked, busyBelow(tt.free, &tried))
		if got != tt.want || (err == nil) != (tt.want != "") || tt.tried != nil && !slices.Equal(tried, tt.tried) {
			t.Errorf("%s: %q, %v, tried %v", tt.name, got, err, tried)
		}
		if said := strings.Contains(log.String(), "--http"); said != (tt.want != "" && tt.want != "127.0.0.1:8080") {
			t.Errorf("%s: the log says %q", tt.name, &log)
		}
	}
	var tried []int
	broken := errors.New("permission denied")
	if _, err := Free(slog.New(slog.DiscardHandler), "--http", "127.0.0.1:80", false, func(string) (string, error) { tried = append(tried, 80); return "", broken }); err != broken || len(tried) != 1 {
		t.Errorf("another failure than a port that is taken: %v, tried %d times", err, len(tried))
	}
}

// A node without --listen gets the port of its last start again: other nodes
// remember its address.
func TestListenPortIsKept(t *testing.T) {
	dir, log := t.TempDir(), slog.New(slog.DiscardHandler)
	busy := map[string]bool{"4001": true}
	bind := func(listen []multiaddr.Multiaddr) (string, error) {
		p, _ := listen[0].ValueForProtocol(multiaddr.P_TCP)
		u, _ := listen[1].ValueForProtocol(multiaddr.P_UDP)
		if p != u {
			t.Errorf("TCP on %s and UDP on %s", p, u)
		}
		if busy[p] {
			return "", syscall.EADDRINUSE
		}
		return p, nil
	}
	for _, tt := range []struct {
		name string
		busy []string
		want string
	}{
		{"4001 is taken", []string{"4001"}, "4002"},
		{"4001 is free again", nil, "4002"},
		{"another has taken its port meanwhile", []string{"4002"}, "4001"},
		{"which it keeps now", nil, "4001"},
	} {
		busy = map[string]bool{}
		for _, p := range tt.busy {
			busy[p] = true
		}
		if got, err := Libp2p(nil, dir, log, bind); got != tt.want || err != nil {
			t.Errorf("%s: port %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, portFile), []byte("-3 nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Libp2p(nil, dir, log, bind); got != "4001" || err != nil {
		t.Errorf("with a damaged file: %s, %v", got, err)
	}
	busy = map[string]bool{"4001": true}
	if _, err := Libp2p(Loopback(4001), dir, log, bind); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port asked for by name: %v", err)
	}
}

func TestDataDirIsLocked(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	dir := filepath.Join(t.TempDir(), "weir")
	unlock, err := DataDir(dir, log)
	if err != nil {
		t.Fatal(err)
	}
	_, err = DataDir(dir, log)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), fmt.Sprintf("process %d", os.Getpid())) {
		t.Errorf("a second lock: %v; want the directory and the process", err)
	}
	other, unlockOther, err := OwnDataDir(dir, log)
	if err != nil || other != dir+"-2" {
		t.Errorf("a directory of --dev's own: %s, %v", other, err)
	}
	for _, unlock := range []func() error{unlock, unlockOther} {
		if err := unlock(); err != nil {
			t.Error(err)
		}
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if unlock, err = DataDir(dir, log); err != nil {
		t.Fatalf("after it was unlocked, and read-only: %v", err)
	}
	_ = unlock()
	if err := os.Chmod(dir, 0o700); err != nil { // so that it can be removed
		t.Fatal(err)
	}
}

func TestOnlyAddr(t *testing.T) {
	addrs := func(list ...string) (all []netip.Addr) {
		for _, s := range list {
			all = append(all, netip.MustParseAddr(s))
		}
		return all
	}
	for _, tt := range []struct {
		name  string
		addrs []netip.Addr
		want  string // if not bound, a part of the error
	}{
		{"the only one", addrs("192.0.2.7"), "192.0.2.7"},
		{"IPv6 beside it", addrs("192.0.2.7", "2001:db8::1", "2001:db8::2"), "192.0.2.7"},
		{"IPv6 alone", addrs("2001:db8::1"), "2001:db8::1"},
		{"two", addrs("192.0.2.7", "198.51.100.1"), "several addresses (192.0.2.7, 198.51.100.1)"},
		{"none", nil, "no address"},
	} {
		got, err := OnlyAddr(tt.addrs)
		if err == nil && got.String() != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

// A media port that was set explicitly and is taken is reported with its flag.
func TestMediaPortIsTaken(t *testing.T) {
	taken, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if _, err := Media(slog.New(slog.DiscardHandler), taken.LocalAddr().String(), true); err == nil ||
		!strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), "--media-port") {
		t.Errorf("%v", err)
	}
}
