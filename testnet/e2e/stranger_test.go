package e2e

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/dht"
	"weir/dht/dhttest"
)

// A stranger is a foreign node that publishes any URL, grants every lease, and
// serves no client.
type stranger struct {
	*dht.Node
	granted atomic.Int64
}

func newStranger(t *testing.T, near node, url string) *stranger {
	t.Helper()
	key := dhttest.Key(t)
	id := dhttest.ID(t, key)
	s := &stranger{}
	network := ask[struct{ Network string }](t, near, "/status").Network
	bootstrap, err := dht.ParseBootstrap(near.P2P[0])
	if err != nil {
		t.Fatal(err)
	}
	s.Node, err = dht.Listen(dht.Config{
		Key: key, Network: network, Bootstrap: []peer.AddrInfo{bootstrap},
		Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/udp/0/quic-v1")},
		Sample: func() (capacity.Record, []capacity.StreamInfo) {
			return capacity.Record{URL: url, Sessions: capacity.Usage{Limit: 1_000}, Uplink: capacity.Usage{Limit: 1e9}}, nil
		},
		Grant: func(r capacity.Request) (capacity.Lease, error) {
			s.granted.Add(1)
			return capacity.Lease{ID: r.ID, Target: id, From: r.From, Need: r.Need, Expires: time.Now().Add(capacity.LeaseTime)}, nil
		},
		Release: func(peer.ID, string) {},
		Log:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	var runs sync.WaitGroup
	runs.Go(func() { _ = s.Run(t.Context()) })
	t.Cleanup(func() {
		_ = s.Close()
		runs.Wait()
	})
	return s
}

// A foreign node's record causes no request to its URL: the redirecting node's
// requests go to the peer, and a client is not sent there if only machines
// inside can reach the URL.
func TestStrangersRecordSendsNobodyAnywhere(t *testing.T) {
	var requests atomic.Int64
	internal := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte("secret"))
	}))
	defer internal.Close()
	w := up(t, 2, func(i int) []string {
		return []string{"--session-limit", "2", "--overflow", []string{"relay", "redirect"}[i-1]}
	})
	relays, redirects := w.n(1), w.n(2)
	fill(t, relays, "one")
	fill(t, redirects, "two")
	knows := func(n node, id peer.ID) bool {
		for _, e := range ask[struct {
			Records []struct{ Record capacity.Record }
		}](t, n, "/records").Records {
			if e.Record.Node == id {
				return true
			}
		}
		return false
	}

	// This network is on loopback, so there the URL is acceptable.
	s := newStranger(t, relays, internal.URL)
	eventually(t, "the stranger's record is known", func() bool { return knows(relays, s.ID()) })
	eventually(t, "nobody but the stranger seems to have room", func() bool {
		_, text := relays.post(t, relays.whep("one"), viewerOffer(t))
		return strings.Contains(text, "could not be reached")
	})
	for range 5 {
		resp, text := relays.post(t, relays.whep("one"), viewerOffer(t))
		if resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("%s: %s", resp.Status, text)
		}
		says(t, text, "could not be reached")
	}
	if n := requests.Load(); n != 0 || s.granted.Load() == 0 {
		t.Errorf("%d requests to the URL in a stranger's record, who granted %d leases; want none", n, s.granted.Load())
	}

	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	metadata := newStranger(t, redirects, "http://169.254.169.254/latest")
	eventually(t, "its record is known", func() bool { return knows(redirects, metadata.ID()) })
	for range 5 {
		resp, text := redirects.post(t, redirects.whep("two"), viewerOffer(t))
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Location") != "" {
			t.Errorf("%s to %q: %s", resp.Status, resp.Header.Get("Location"), text)
		}
	}
	if n := redirects.metric(t, `weir_addresses_refused_total{kind="metadata",use="redirect"}`); n == 0 {
		t.Error("no refused address is counted")
	}
}
