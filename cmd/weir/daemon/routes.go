package daemon

import (
	"net/http"

	"weir/cmd/weir/admin"
	"weir/cmd/weir/api"
	"weir/cmd/weir/console"
)

// publicHandler serves clients and the console.
func (n *node) publicHandler() http.Handler {
	media := n.counters.Times.Requested(n.sfu.Clients().Handler())
	mux := http.NewServeMux()
	mux.Handle("/whip/", media)
	mux.Handle("/whep/", media)
	mux.Handle("/session/", media)
	n.health.Register(mux)
	mux.HandleFunc("GET /openapi.yaml", api.ServeOpenAPI)
	pages := &console.Pages{
		Mode: n.cfg.console, Framing: n.cfg.embed, Node: n.dht, View: n.view, Events: n.events, Gate: n.gate,
		Network: n.cfg.network, Admin: n.ports.adminAddr, Invite: n.invite, ByToken: n.cfg.servers != nil || n.cfg.operator != "", Log: n.log,
	}
	pages.Register(mux)
	return n.proxies.asClients(mux)
}

// adminHandler serves the operator.
func (n *node) adminHandler() http.Handler {
	a := &admin.API{
		Node: n.dht, SFU: n.sfu, View: n.view, Events: n.events, Policy: n.policy.Policy, Store: n.policies, Drain: n.drain, Network: n.cfg.network,
		Status: n.status, Names: n.names, Config: n.reloading.reply, Reload: n.reloading.reload, Diagnose: n.diagnose, Invite: n.invite,
		Metrics: scraped(n), Health: n.health, Log: n.log,
	}
	return a.Handler()
}
