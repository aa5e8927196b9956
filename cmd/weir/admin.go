package main

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/cmd/weir/httpd"
	"weir/cmd/weir/survey"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/inspect"
	"weir/sfu/meter"
	"weir/sfu/problem"
)

// publicHandler serves clients and the console.
func (n *node) publicHandler() http.Handler {
	media := n.counters.Times.Requested(n.sfu.Clients().Handler())
	mux := http.NewServeMux()
	mux.Handle("/whip/", media)
	mux.Handle("/whep/", media)
	mux.Handle("/session/", media)
	n.health(mux)
	mux.HandleFunc("GET /openapi.yaml", api.ServeOpenAPI)
	n.embed(mux)
	n.console(mux)
	return n.asClients(mux)
}

// health serves the probes of service managers, orchestrators and load balancers.
func (n *node) health(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", n.alive.Healthz)
	mux.HandleFunc("GET /readyz", n.readyz)
}

// readyz says whether the node is in the network and takes placements.
func (n *node) readyz(w http.ResponseWriter, r *http.Request) {
	select {
	case <-n.dht.Ready():
	default:
		problem.New(problem.NotReady, "this node is not in its network yet").Retry(survey.RetryAfter).Write(w)
		return
	}
	if s := n.ledger.Totals(time.Now()).State; s == capacity.Draining {
		problem.New(problem.Draining, "this node is draining: it takes nothing new").Write(w)
		return
	}
	fmt.Fprintln(w, "ready")
}

// adminHandler serves the admin API, metrics and profiles.
func (n *node) adminHandler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			if err != nil {
				httpd.Fail(n.log, w, r, err)
				return
			}
			httpd.WriteJSON(w, v)
		})
	}
	get := func(path string, f func(r *http.Request) (any, error)) { handle("GET /api/v1"+path, f) }
	get("/status", func(*http.Request) (any, error) { return n.status(), nil })
	get("/peers", func(*http.Request) (any, error) { return n.dht.Prober.Peers(), nil })
	get("/names", func(*http.Request) (any, error) { return n.names(), nil })
	get("/holdings", func(*http.Request) (any, error) { return n.dht.Reader.Holdings(), nil })
	get("/links", func(*http.Request) (any, error) { return n.sfu.Links().All(), nil })
	get("/sessions", func(*http.Request) (any, error) { return n.sfu.Clients().Sessions(), nil })
	get("/decisions", func(*http.Request) (any, error) { return n.view.LastDecisions(), nil })
	get("/policy", func(*http.Request) (any, error) { return n.policy.Policy().Policy(), nil })
	get("/records", func(r *http.Request) (any, error) {
		return survey.Read(r.Context(), n.dht.Reader, survey.Topic(r.URL.Query().Get("stream")))
	})
	get("/records/{peer}", func(r *http.Request) (any, error) {
		id, err := peer.Decode(r.PathValue("peer"))
		if err != nil {
			return nil, problem.New(problem.BadParameter, fmt.Sprintf("%q is no peer ID", r.PathValue("peer")))
		}
		return survey.Of(r.Context(), n.dht.Prober, n.dht.Reader, id)
	})
	get("/streams", func(r *http.Request) (any, error) {
		records, err := survey.Read(r.Context(), n.dht.Reader, dht.CapacityTopic())
		if err != nil {
			return nil, err
		}
		return survey.Streams(r.Context(), n.dht.Prober, records), nil
	})
	get("/policy/history", func(*http.Request) (any, error) { return n.policies.History() })
	mux.HandleFunc("POST /api/v1/policy", n.pushPolicy)
	handle("POST /api/v1/policy/try", n.tryPolicy)
	mux.HandleFunc("POST /api/v1/drain", n.serveDrain)
	mux.HandleFunc("POST /api/v1/undrain", n.serveUndrain)
	get("/config", func(*http.Request) (any, error) { return n.configReply(), nil })
	handle("POST /api/v1/reload", n.serveReload)
	get("/select", n.explain)
	get("/doctor", n.doctor)
	get("/invite", func(*http.Request) (any, error) {
		token, err := n.invite()
		return api.Invitation{Token: token, Network: n.cfg.network}, err
	})
	streams := &httpd.StreamLimit{}
	mux.HandleFunc("GET /api/v1/records/watch", streams.Bound(n.watchRecords))
	mux.HandleFunc("GET /api/v1/events", streams.Bound(n.serveEvents))
	mux.HandleFunc("GET /api/v1/ping", n.servePing)
	handle("POST /api/v1/sessions/{id}/end", n.endSession)
	handle("POST /api/v1/streams/end", n.endStream)
	n.health(mux)
	mux.HandleFunc("GET /api/v1/openapi.yaml", api.ServeOpenAPI)
	mux.Handle("GET /metrics", n.scraped())
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return sameSite(problem.Mux(mux))
}

// sameSite refuses requests that a web page in the operator's browser could
// make: those from another origin, or under a host name that was bound to our
// address (DNS rebinding).
func sameSite(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !httpd.AddressedByIP(r) {
			problem.New(problem.BadHost, "reach the admin API by its IP address or as localhost").Write(w)
			return
		}
		// Scripts and forms send Origin; all requests of browsers, such as
		// those for pictures and links of other pages, carry Sec-Fetch-Site. It
		// is "none" for the address bar.
		site := r.Header.Get("Sec-Fetch-Site")
		if origin := r.Header.Get("Origin"); origin != "" && origin != "http://"+r.Host || site != "" && site != "same-origin" && site != "none" {
			problem.New(problem.BadOrigin, "the admin API is not for other sites").Write(w)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// purposeOf reads the purpose of a hypothetical need.
func purposeOf(q url.Values) (capacity.Purpose, error) {
	if q.Get("purpose") == "" {
		return capacity.View, nil
	}
	p, err := capacity.ParsePurpose(q.Get("purpose"))
	if err != nil {
		return p, problem.New(problem.BadParameter, err.Error())
	}
	return p, nil
}

// needOf reads a hypothetical need for purpose. A value missing in q defaults
// to that of a client of that kind.
func needOf(q url.Values, purpose capacity.Purpose) (capacity.Need, error) {
	need := meter.DefaultNeed(purpose, q.Get("stream"))
	need.Region = q.Get("region")
	if need.Stream != "" {
		if err := capacity.ValidStreamName(need.Stream); err != nil {
			return need, problem.New(problem.BadParameter, err.Error())
		}
	}
	if v := q.Get("uplink"); v != "" {
		bits, err := term.ParseBitrate(v)
		if err != nil {
			return need, problem.New(problem.BadParameter, err.Error())
		}
		need.Uplink = bits
	}
	if v := q.Get("packets"); v != "" {
		p, err := strconv.ParseInt(v, 10, 32)
		if err != nil || p < 0 {
			return need, problem.New(problem.BadParameter, fmt.Sprintf("packets=%s: want packets per second", v))
		}
		need.Packets = p
	}
	return need, nil
}

func (n *node) explain(r *http.Request) (any, error) {
	q := r.URL.Query()
	purpose, err := purposeOf(q)
	if err != nil {
		return nil, err
	}
	need, err := needOf(q, purpose)
	if err != nil {
		return nil, err
	}
	topic := dht.CapacityTopic()
	if need.Purpose == capacity.Cascade {
		if need.Stream == "" {
			return nil, problem.New(problem.BadParameter, "a cascade needs a stream: add stream=NAME")
		}
		topic = dht.StreamTopic(need.Stream)
	}
	return n.dht.Seeker.Explain(r.Context(), topic, need, []peer.ID{n.dht.ID()})
}

func (n *node) watchRecords(w http.ResponseWriter, r *http.Request) {
	send, ok := httpd.EventStream(w)
	if !ok {
		return
	}
	err := n.dht.Reader.Watch(r.Context(), survey.Topic(r.URL.Query().Get("stream")), func(c inspect.Change) error { return send(survey.Change(c)) })
	n.log.Debug("watch ended", "err", err)
}
