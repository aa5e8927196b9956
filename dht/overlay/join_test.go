package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"weir/dht/dhttest"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

func TestRealAddrs(t *testing.T) {
	strs := func(as []multiaddr.Multiaddr) (list []string) {
		for _, a := range as {
			list = append(list, a.String())
		}
		return list
	}
	in := []multiaddr.Multiaddr{
		multiaddr.StringCast("/ip4/127.0.0.1/tcp/1"), multiaddr.StringCast("/ip4/0.0.0.0/tcp/1"), multiaddr.StringCast("/ip6/::1/tcp/1"),
		multiaddr.StringCast("/ip6/fe80::1/tcp/1"), multiaddr.StringCast("/ip4/192.0.2.1/tcp/1"),
	}
	if got := strs(realAddrs(in)); !slices.Equal(got, []string{"/ip4/192.0.2.1/tcp/1"}) {
		t.Errorf("got %v, want the address others can reach", got)
	}
	if got := strs(realAddrs(in[:2])); !slices.Equal(got, []string{"/ip4/127.0.0.1/tcp/1"}) {
		t.Errorf("got %v, want loopback for want of better", got)
	}
	public := netip.MustParseAddr("203.0.113.7")
	in = []multiaddr.Multiaddr{
		multiaddr.StringCast("/ip4/127.0.0.1/tcp/4001"), multiaddr.StringCast("/ip4/10.0.0.5/tcp/4001"), multiaddr.StringCast("/ip4/172.17.0.1/tcp/4001"),
		multiaddr.StringCast("/ip4/10.0.0.5/udp/4001/quic-v1"), multiaddr.StringCast("/ip6/2001:db8::1/tcp/4001"),
	}
	want := []string{"/ip4/203.0.113.7/tcp/4001", "/ip4/203.0.113.7/udp/4001/quic-v1", "/ip6/2001:db8::1/tcp/4001"}
	if got := strs(realAddrs(mapped(in, public))); !slices.Equal(got, want) {
		t.Errorf("behind a NAT: got %v, want %v", got, want)
	}
	if got := strs(realAddrs(mapped(in[:1], public))); !slices.Equal(got, []string{"/ip4/127.0.0.1/tcp/4001"}) {
		t.Errorf("bound to loopback: got %v", got)
	}
}

func TestPeerFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "peers.json")
	if got, err := ReadPeerFile(path); err != nil || got != nil {
		t.Errorf("no file: %v, %v", got, err)
	}
	if got, err := ReadPeerFile(""); err != nil || got != nil {
		t.Errorf("no path: %v, %v", got, err)
	}
	var peers []peer.AddrInfo
	for range maxRemembered + 5 {
		peers = append(peers, peer.AddrInfo{ID: dhttest.ID(t, dhttest.Key(t)), Addrs: slices.Repeat([]multiaddr.Multiaddr{multiaddr.StringCast("/ip4/192.0.2.1/tcp/1")}, 12)})
	}
	peers[3].Addrs = nil
	if err := writePeerFile(path, mergePeers(peers, peers[:10])); err != nil {
		t.Fatal(err)
	}
	got, err := ReadPeerFile(path)
	if err != nil || len(got) != maxRemembered || got[0].ID != peers[0].ID || got[3].ID != peers[4].ID || len(got[0].Addrs) != maxPeerAddrs {
		t.Errorf("%d peers, %v", len(got), err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("%d files, want the peer file only", len(left))
	}
	for _, bad := range []string{"", "{", `{"peers":[{"id":"x"}]}`, `{"peers":[{"id":"` + peers[0].ID.String() + `","addrs":["x"]}]}`, strings.Repeat(" ", maxPeerFile+1)} {
		if _, err := parsePeerFile([]byte(bad)); err == nil {
			t.Errorf("%.60q was read", bad)
		}
	}
}

// An unreadable peer file costs its peers and nothing else. A data directory
// that cannot be written to is logged once, not every ten seconds, and again
// when that changes.
func TestPeerFileThatCannotBeWritten(t *testing.T) {
	var log bytes.Buffer
	dir := filepath.Join(t.TempDir(), "absent")
	k := peerKeeper{path: filepath.Join(dir, "peers.json"), log: slog.New(slog.NewTextHandler(&log, nil))}
	peers := func(port int) []peer.AddrInfo {
		return []peer.AddrInfo{{ID: dhttest.ID(t, dhttest.Key(t)), Addrs: []multiaddr.Multiaddr{multiaddr.StringCast(fmt.Sprintf("/ip4/192.0.2.1/tcp/%d", port))}}}
	}
	said := func(want int, words string) {
		t.Helper()
		if got := strings.Count(log.String(), "\n"); got != want || !strings.Contains(log.String(), words) {
			t.Fatalf("%d lines, want %d with %q:\n%s", got, want, words, &log)
		}
	}
	for i := range 3 {
		k.keep(peers(1 + i))
	}
	said(1, "no such file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	k.keep(peers(1))
	k.keep(peers(2))
	said(2, "not a directory")
	if err := errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	k.keep(peers(1))
	k.keep(peers(2))
	said(3, "remembered again")
}

func FuzzParsePeerFile(f *testing.F) {
	id := dhttest.ID(f, dhttest.Key(f))
	f.Add([]byte(`{"peers":[{"id":"` + id.String() + `","addrs":["/ip4/127.0.0.1/tcp/1"]}]}`))
	f.Add([]byte(`{"peers":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		peers, err := parsePeerFile(b)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "p")
		if err := writePeerFile(path, peers); err != nil {
			t.Fatal(err)
		}
		again, err := ReadPeerFile(path)
		if err != nil || !slices.EqualFunc(peers, again, samePeer) {
			t.Fatalf("%v became %v, %v", peers, again, err)
		}
	})
}
