package main

import (
	"cmp"
	"context"
	"fmt"
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
	"weir/sfu/problem"
)

// A consoleMode says which clients may see the network in the console.
type consoleMode string

const (
	// consoleOff serves no page at all.
	consoleOff consoleMode = "off"
	// consoleLocal shows the network to clients on this machine, and only the
	// player and the publisher to all others.
	consoleLocal consoleMode = "local"
	// consolePublic shows everything to all clients.
	consolePublic consoleMode = "public"
)

func parseConsoleMode(s string) (consoleMode, error) {
	switch m := consoleMode(s); m {
	case consoleOff, consoleLocal, consolePublic:
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

// console serves the pages and the data that they read.
func (n *node) console(mux *http.ServeMux) {
	if n.cfg.console == consoleOff {
		return
	}
	streams := &httpd.StreamLimit{}
	mux.HandleFunc("GET /console/state", n.consoleState)
	mux.HandleFunc("GET /console/events", func(w http.ResponseWriter, r *http.Request) {
		if !n.showsNetwork(r) {
			problem.New(problem.NotLocal, "this node shows its network to its own machine only; --console public changes that").Write(w)
			return
		}
		streams.Bound(n.consoleEvents)(w, r)
	})
	mux.Handle("/", web.Handler())
}

// showsNetwork reports whether r may see more than the player.
func (n *node) showsNetwork(r *http.Request) bool {
	return n.cfg.console == consolePublic || httpd.FromThisMachine(r)
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

func (n *node) lastHappenings() []happening {
	kept := n.events.Kept()
	kept = kept[max(0, len(kept)-happenedShown):]
	all := make([]happening, len(kept))
	for i, e := range kept {
		all[i] = happeningOf(e)
	}
	return all
}

// consoleReply is the body of /console/state. A player that may not see the
// network gets Limited and Elsewhere only.
type consoleReply struct {
	api.NetworkState
	Limited   bool             `json:"limited,omitempty"`
	Elsewhere []string         `json:"elsewhere,omitempty"`
	Happened  []happening      `json:"happened,omitempty"`
	Commands  *consoleCommands `json:"commands,omitempty"`
}

// consoleCommands are lines to run on this machine, as the console shows them.
type consoleCommands struct {
	Status string `json:"status"`
	Join   string `json:"join"` // starts another node of this network
}

// nextCommands returns the commands for this node.
func (n *node) nextCommands() *consoleCommands {
	c := consoleCommands{Status: "weir status", Join: "weir node"}
	if n.adminAddr() != api.DefaultAdmin {
		c.Status += " --admin " + n.adminAddr()
	}
	addrs := n.dht.Overlay.Addrs()
	if len(addrs) == 0 {
		c.Join += " --bootstrap ADDRESS" // the address is not known before the node listens
		return &c
	}
	// Two processes never share a data directory, and a client that reaches us
	// by loopback is on this machine.
	if manet.IsIPLoopback(addrs[0]) {
		c.Join += " --data-dir weir-second"
	}
	if token, err := n.invite(); err == nil && (n.cfg.servers != nil || n.cfg.operator != "") {
		c.Join += " --join " + token
		return &c
	}
	if n.cfg.network != api.DefaultNetwork {
		c.Join += " --network " + cmdline.ShellWord(n.cfg.network)
	}
	c.Join += " --bootstrap " + addrs[0].String()
	return &c
}

func (n *node) consoleState(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*survey.Timeout)
	defer cancel()
	state, _, err := n.view.Latest(ctx)
	if err != nil {
		httpd.Fail(n.log, w, r, err)
		return
	}
	if !n.showsNetwork(r) {
		httpd.WriteJSON(w, consoleReply{
			NetworkState: api.NetworkState{Nodes: []api.Record{}, Streams: []api.Stream{}, Gone: []api.GoneNode{}, Time: state.Time},
			Limited:      true, Elsewhere: elsewhere(state, r.URL.Query().Get("stream"), n.gate),
		})
		return
	}
	httpd.WriteJSON(w, consoleReply{NetworkState: state, Happened: n.lastHappenings(), Commands: n.nextCommands()})
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

func (n *node) consoleEvents(w http.ResponseWriter, r *http.Request) {
	send, ok := httpd.EventStream(w)
	if !ok {
		return
	}
	last, next, cancel := n.events.Subscribe()
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
		state, changed, err := n.view.Latest(r.Context())
		if err != nil {
			return
		}
		if state.Time.After(sent) {
			if send(consoleReply{NetworkState: state, Commands: n.nextCommands()}) != nil {
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
