package console

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	manet "github.com/multiformats/go-multiaddr/net"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/scope"
	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/eventlog"
	"weir/cmd/weir/httpd"
	"weir/cmd/weir/survey"
	"weir/cmd/weir/web"
	"weir/dht"
	"weir/sfu/problem"
)

// A Mode says which clients may see the network in the console.
type Mode string

const (
	// Off serves no page at all.
	Off Mode = "off"
	// Local shows the network to clients on this machine, and only the
	// player and the publisher to all others.
	Local Mode = "local"
	// Public shows everything to all clients.
	Public Mode = "public"
)

// ParseMode reads --console.
func ParseMode(s string) (Mode, error) {
	switch m := Mode(s); m {
	case Off, Local, Public:
		return m, nil
	}
	return "", fmt.Errorf("--console %s: want local, public or off", s)
}

const (
	// elsewhereShown is how many other nodes a player is given.
	elsewhereShown = 3
	// happenedShown is how many of the last events the console begins with.
	happenedShown = 60
)

// Pages are what browsers get on the public port: the console, the player,
// the publisher, and what pages of other sites embed. All fields but Framing are
// required.
type Pages struct {
	Mode    Mode
	Framing []string // sources of frame-ancestors; nil: no embed page
	Node    *dht.Node
	View    *survey.Overview
	Events  *eventlog.Hub
	Gate    *scope.Gate
	Network string        // its name
	Admin   func() string // the admin API's address from this machine
	Invite  func() (token string, err error)
	ByToken bool // joining needs more than an address and the network's name
	Log     *slog.Logger
}

// Register adds the pages, and the data that they read.
func (p *Pages) Register(mux *http.ServeMux) {
	p.embed(mux)
	p.console(mux)
}

func (p *Pages) console(mux *http.ServeMux) {
	if p.Mode == Off {
		return
	}
	streams := &httpd.StreamLimit{}
	mux.HandleFunc("GET /console/state", p.consoleState)
	mux.HandleFunc("GET /console/events", func(w http.ResponseWriter, r *http.Request) {
		if !p.showsNetwork(r) {
			problem.New(problem.NotLocal, "this node shows its network to its own machine only; --console public changes that").Write(w)
			return
		}
		streams.Bound(p.consoleEvents)(w, r)
	})
	mux.Handle("/", web.Handler())
}

// showsNetwork reports whether r may see more than the player.
func (p *Pages) showsNetwork(r *http.Request) bool {
	return p.Mode == Public || httpd.FromThisMachine(r)
}

// A happening is an event as the console shows it.
type happening struct {
	event.Event
	Words string `json:"words"`
	Level string `json:"level"` // "debug", "info" or "warn"
}

// EventName is the name of this server-sent event.
func (happening) EventName() string { return "happened" }

func happeningOf(e event.Event) happening {
	level, words := eventlog.Message(e)
	return happening{e, words, strings.ToLower(level.String())}
}

func (p *Pages) lastHappenings() []happening {
	kept := p.Events.Kept()
	kept = kept[max(0, len(kept)-happenedShown):]
	all := make([]happening, len(kept))
	for i, e := range kept {
		all[i] = happeningOf(e)
	}
	return all
}

// reply is the body of /console/state. A player that may not see the
// network gets Limited and Elsewhere only.
type reply struct {
	api.NetworkState
	Limited   bool        `json:"limited,omitempty"`
	Elsewhere []string    `json:"elsewhere,omitempty"`
	Happened  []happening `json:"happened,omitempty"`
	Commands  *commands   `json:"commands,omitempty"`
}

// commands are lines to run on this machine, as the console shows them.
type commands struct {
	Status string `json:"status"`
	Join   string `json:"join"` // starts another node of this network
}

// nextCommands returns the commands for this node.
func (p *Pages) nextCommands() *commands {
	c := commands{Status: "weir status", Join: "weir node"}
	if p.Admin() != api.DefaultAdmin {
		c.Status += " --admin " + p.Admin()
	}
	addrs := p.Node.Overlay.Addrs()
	if len(addrs) == 0 {
		c.Join += " --bootstrap ADDRESS" // the address is not known before the node listens
		return &c
	}
	// Two processes never share a data directory, and a client that reaches us
	// by loopback is on this machine.
	if manet.IsIPLoopback(addrs[0]) {
		c.Join += " --data-dir weir-second"
	}
	if token, err := p.Invite(); err == nil && p.ByToken {
		c.Join += " --join " + token
		return &c
	}
	if p.Network != api.DefaultNetwork {
		c.Join += " --network " + cmdline.ShellWord(p.Network)
	}
	c.Join += " --bootstrap " + addrs[0].String()
	return &c
}

func (p *Pages) consoleState(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*survey.Timeout)
	defer cancel()
	state, _, err := p.View.Latest(ctx)
	if err != nil {
		httpd.Fail(p.Log, w, r, err)
		return
	}
	if !p.showsNetwork(r) {
		httpd.WriteJSON(w, reply{
			NetworkState: api.NetworkState{Nodes: []api.Record{}, Streams: []api.Stream{}, Gone: []api.GoneNode{}, Time: state.Time},
			Limited:      true, Elsewhere: elsewhere(state, r.URL.Query().Get("stream"), p.Gate),
		})
		return
	}
	httpd.WriteJSON(w, reply{NetworkState: state, Happened: p.lastHappenings(), Commands: p.nextCommands()})
}

// elsewhere lists the public URLs of other nodes where a player may request
// stream when this node does not answer: carriers of the stream first, and only
// URLs that the gate allows for clients.
func elsewhere(state api.NetworkState, stream string, gate *scope.Gate) []string {
	type place struct {
		url     string
		carries bool
		stress  float64
	}
	carries := map[string]bool{}
	for _, s := range state.Streams {
		if s.Stream == stream {
			for _, c := range s.Carriers {
				carries[c.URL] = true
			}
		}
	}
	var places []place
	for _, e := range state.Nodes {
		if r := e.Record; e.Valid && r != nil && r.URL != "" && e.Node != state.Self && r.State == capacity.Active && gate.CheckURL(scope.Redirect, r.URL) == nil {
			places = append(places, place{r.URL, carries[r.URL], r.Stress()})
		}
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.carries != b.carries {
			if a.carries {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(a.stress, b.stress), cmp.Compare(a.url, b.url))
	})
	urls := []string{}
	for _, p := range places[:min(len(places), elsewhereShown)] {
		urls = append(urls, p.url)
	}
	return urls
}

func (p *Pages) consoleEvents(w http.ResponseWriter, r *http.Request) {
	send, ok := httpd.EventStream(w)
	if !ok {
		return
	}
	last, next, cancel := p.Events.Subscribe()
	defer cancel()
	for _, e := range last[max(0, len(last)-happenedShown):] {
		if send(happeningOf(e)) != nil {
			return
		}
	}
	tick := time.NewTicker(survey.Pause) // renews the request for overviews
	defer tick.Stop()
	var sent time.Time
	for {
		state, changed, err := p.View.Latest(r.Context())
		if err != nil {
			return
		}
		if state.Time.After(sent) {
			if send(reply{NetworkState: state, Commands: p.nextCommands()}) != nil {
				return
			}
			sent = state.Time
		}
		select {
		case e, open := <-next:
			if !open || send(happeningOf(e)) != nil {
				return
			}
		case <-changed:
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}
