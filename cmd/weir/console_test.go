package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/scope"
	"weir/cmd/weir/api"
	"weir/sfu/proxied"
)

func TestOnlyThisMachineSeesTheNetwork(t *testing.T) {
	for _, c := range []struct {
		name   string
		remote string
		local  string // of the connection; "" if unknown
		host   string
		header map[string]string
		proxy  string // that gave the client's address
		want   bool
	}{
		{name: "by loopback", remote: "127.0.0.1:5000", host: "127.0.0.1:8080", want: true},
		{name: "by IPv6 loopback", remote: "[::1]:5000", host: "[::1]:8080", want: true},
		{name: "as localhost", remote: "127.0.0.1:5000", host: "localhost:8080", want: true},
		{name: "by an own address of this machine", remote: "192.0.2.7:5000", local: "192.0.2.7:8080", host: "192.0.2.7:8080", want: true},
		{name: "from another machine", remote: "192.0.2.9:5000", local: "192.0.2.7:8080", host: "192.0.2.7:8080"},
		{name: "a name bound to loopback by another site", remote: "127.0.0.1:5000", host: "evil.example:8080"},
		{name: "through a proxy that says so", remote: "127.0.0.1:5000", host: "127.0.0.1:8080", header: map[string]string{"X-Forwarded-For": "192.0.2.9"}},
		{name: "through a proxy of the standard", remote: "127.0.0.1:5000", host: "127.0.0.1:8080", header: map[string]string{"Forwarded": "for=192.0.2.9"}},
		{name: "from another machine's loopback, by a PROXY header", remote: "127.0.0.1:5000", host: "127.0.0.1:8080", proxy: "192.0.2.7"},
		{name: "an address that is none", remote: "@", host: "127.0.0.1:8080"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/console/state", nil)
			r.RemoteAddr, r.Host = c.remote, c.host
			for k, v := range c.header {
				r.Header.Set(k, v)
			}
			if c.local != "" {
				addr, err := net.ResolveTCPAddr("tcp", c.local)
				if err != nil {
					t.Fatal(err)
				}
				r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(addr)))
			}
			if c.proxy != "" {
				client := proxied.Of(r)
				client.Proxy = netip.MustParseAddr(c.proxy)
				r = client.Request(r)
			}
			if got := fromThisMachine(r); got != c.want {
				t.Errorf("fromThisMachine = %v, want %v", got, c.want)
			}
		})
	}
}

func TestEventStreamsAreBounded(t *testing.T) {
	var l streamLimit
	open := func(from string) (release func(), status int) {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = from
		release, ok := l.take(w, r)
		if ok {
			return release, http.StatusOK
		}
		if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"code":"too-many-event-streams"`) {
			t.Errorf("refused with %v %s", w.Header(), w.Body)
		}
		return nil, w.Code
	}
	var first func()
	for i := range eventStreamsEach {
		release, status := open("192.0.2.1:1")
		if status != http.StatusOK {
			t.Fatalf("stream %d of an address: %d", i, status)
		}
		if i == 0 {
			first = release
		}
	}
	if _, status := open("192.0.2.1:2"); status != http.StatusTooManyRequests {
		t.Errorf("one more stream of an address than it may have: %d", status)
	}
	first()
	if _, status := open("192.0.2.1:3"); status != http.StatusOK {
		t.Errorf("a place that was given back: %d", status)
	}
	left := eventStreams - eventStreamsEach
	for i := range left {
		if _, status := open("198.51.100." + string(rune('0'+i/eventStreamsEach)) + ":1"); status != http.StatusOK {
			t.Fatalf("stream %d of all: %d", i, status)
		}
	}
	if _, status := open("203.0.113.1:1"); status != http.StatusTooManyRequests {
		t.Errorf("one more stream than all may have: %d", status)
	}
}

func TestPlayersLearnOfFewOtherNodes(t *testing.T) {
	var state api.NetworkState
	add := func(id, url string, used int64, s capacity.State) {
		r := capacity.Record{Node: peer.ID(id), URL: url, State: s, Sessions: capacity.Usage{Used: used, Limit: 10}}
		state.Nodes = append(state.Nodes, api.Record{Node: r.Node, Record: &r, Valid: true})
	}
	state.Self = "a"
	add("a", "http://a", 0, capacity.Active)
	add("b", "http://b", 5, capacity.Active)
	add("c", "http://c", 1, capacity.Active)
	add("d", "http://d", 7, capacity.Active)
	add("e", "http://e", 0, capacity.Draining)
	add("f", "", 0, capacity.Active)
	add("g", "http://g", 2, capacity.Active)
	add("h", "http://169.254.169.254", 0, capacity.Active)
	state.Streams = []api.Stream{{Stream: "demo", Carriers: []api.Carrier{{Node: "d", URL: "http://d"}}}}
	gate := scope.NewGate(nil, true) // names without a dot are of this site
	if got, want := elsewhere(state, "demo", gate), []string{"http://d", "http://c", "http://g"}; !slices.Equal(got, want) {
		t.Errorf("elsewhere = %v, want %v: the one that carries it, then the least stressed", got, want)
	}
}

func TestConsoleModes(t *testing.T) {
	if _, err := parseConsoleMode("locl"); err == nil || !strings.Contains(err.Error(), "local, public or off") {
		t.Errorf("a mode that is none: %v", err)
	}
	for mode, want := range map[consoleMode]int{consoleOff: http.StatusNotFound, consoleLocal: http.StatusOK, consolePublic: http.StatusOK} {
		n := &node{cfg: nodeConfig{console: mode}}
		mux := http.NewServeMux()
		n.console(mux)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/publish", nil))
		if w.Code != want {
			t.Errorf("%s: GET /publish = %d, want %d", mode, w.Code, want)
		}
		// A foreign client, which httptest's address is, gets events in public
		// mode only.
		if mode == consoleLocal {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/console/events", nil))
			if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"code":"not-local"`) {
				t.Errorf("a stranger's events = %d %s", w.Code, w.Body)
			}
		}
	}
}
