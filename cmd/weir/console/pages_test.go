package console

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/scope"
	"weir/cmd/weir/api"
)

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
	if _, err := ParseMode("locl"); err == nil || !strings.Contains(err.Error(), "local, public or off") {
		t.Errorf("a mode that is none: %v", err)
	}
	for mode, want := range map[Mode]int{Off: http.StatusNotFound, Local: http.StatusOK, Public: http.StatusOK} {
		p := &Pages{Mode: mode}
		mux := http.NewServeMux()
		p.console(mux)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/publish", nil))
		if w.Code != want {
			t.Errorf("%s: GET /publish = %d, want %d", mode, w.Code, want)
		}
		// A foreign client, which httptest's address is, gets events in public
		// mode only.
		if mode == Local {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/console/events", nil))
			if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"code":"not-local"`) {
				t.Errorf("a stranger's events = %d %s", w.Code, w.Body)
			}
		}
	}
}
