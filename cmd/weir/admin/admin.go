package admin

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/pprof"
	"net/url"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/cmd/weir/api"
	"weir/cmd/weir/doctor"
	"weir/cmd/weir/drain"
	"weir/cmd/weir/eventlog"
	"weir/cmd/weir/httpd"
	"weir/cmd/weir/policies"
	"weir/cmd/weir/supervise"
	"weir/cmd/weir/survey"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/inspect"
	"weir/sfu"
	"weir/sfu/meter"
	"weir/sfu/problem"
)

// An API serves what a node knows of itself and of its network, and lets
// the operator change what may change while it runs. All fields are required.
type API struct {
	Node     *dht.Node
	SFU      *sfu.SFU
	View     *survey.Overview
	Events   *eventlog.Hub
	Policy   func() *policy.Compiled // in force
	Store    *policies.Store         // the operator's policies
	Drain    *drain.Drainer
	Network  string // its name
	Status   func() api.Status
	Names    func() map[string]string // of nodes, by peer ID
	Config   func() api.Config
	Reload   func() (api.Reload, error) // reads the configuration again
	Diagnose func(context.Context) doctor.Diagnosis
	Invite   func() (token string, err error)
	Metrics  http.Handler
	Health   *supervise.Health
	Log      *slog.Logger
}

// Handler serves the admin API, metrics and profiles.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			if err != nil {
				httpd.Fail(a.Log, w, r, err)
				return
			}
			httpd.WriteJSON(w, v)
		})
	}
	get := func(path string, f func(r *http.Request) (any, error)) { handle("GET /api/v1"+path, f) }
	get("/status", func(*http.Request) (any, error) { return a.Status(), nil })
	get("/peers", func(*http.Request) (any, error) { return a.Node.Prober.Peers(), nil })
	get("/names", func(*http.Request) (any, error) { return a.Names(), nil })
	get("/holdings", func(*http.Request) (any, error) { return a.Node.Reader.Holdings(), nil })
	get("/links", func(*http.Request) (any, error) { return a.SFU.Links().All(), nil })
	get("/sessions", func(*http.Request) (any, error) { return a.SFU.Clients().Sessions(), nil })
	get("/decisions", func(*http.Request) (any, error) { return a.View.LastDecisions(), nil })
	get("/policy", func(*http.Request) (any, error) { return a.Policy().Policy(), nil })
	get("/records", func(r *http.Request) (any, error) {
		return survey.Read(r.Context(), a.Node.Reader, survey.Topic(r.URL.Query().Get("stream")))
	})
	get("/records/{peer}", func(r *http.Request) (any, error) {
		id, err := peer.Decode(r.PathValue("peer"))
		if err != nil {
			return nil, problem.New(problem.BadParameter, fmt.Sprintf("%q is no peer ID", r.PathValue("peer")))
		}
		return survey.Of(r.Context(), a.Node.Prober, a.Node.Reader, id)
	})
	get("/streams", func(r *http.Request) (any, error) {
		records, err := survey.Read(r.Context(), a.Node.Reader, dht.CapacityTopic())
		if err != nil {
			return nil, err
		}
		return survey.Streams(r.Context(), a.Node.Prober, records), nil
	})
	get("/policy/history", func(*http.Request) (any, error) { return a.Store.History() })
	mux.HandleFunc("POST /api/v1/policy", a.pushPolicy)
	handle("POST /api/v1/policy/try", a.tryPolicy)
	mux.HandleFunc("POST /api/v1/drain", a.serveDrain)
	mux.HandleFunc("POST /api/v1/undrain", a.serveUndrain)
	get("/config", func(*http.Request) (any, error) { return a.Config(), nil })
	handle("POST /api/v1/reload", a.reload)
	get("/select", a.explain)
	get("/doctor", func(r *http.Request) (any, error) { return a.Diagnose(r.Context()), nil })
	get("/invite", func(*http.Request) (any, error) {
		token, err := a.Invite()
		return api.Invitation{Token: token, Network: a.Network}, err
	})
	streams := &httpd.StreamLimit{}
	mux.HandleFunc("GET /api/v1/records/watch", streams.Bound(a.watchRecords))
	mux.HandleFunc("GET /api/v1/events", streams.Bound(a.serveEvents))
	mux.HandleFunc("GET /api/v1/ping", a.servePing)
	handle("POST /api/v1/sessions/{id}/end", a.endSession)
	handle("POST /api/v1/streams/end", a.endStream)
	a.Health.Register(mux)
	mux.HandleFunc("GET /api/v1/openapi.yaml", api.ServeOpenAPI)
	mux.Handle("GET /metrics", a.Metrics)
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

func (a *API) explain(r *http.Request) (any, error) {
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
	return a.Node.Seeker.Explain(r.Context(), topic, need, []peer.ID{a.Node.ID()})
}

func (a *API) watchRecords(w http.ResponseWriter, r *http.Request) {
	send, ok := httpd.EventStream(w)
	if !ok {
		return
	}
	err := a.Node.Reader.Watch(r.Context(), survey.Topic(r.URL.Query().Get("stream")), func(c inspect.Change) error { return send(survey.Change(c)) })
	a.Log.Debug("watch ended", "err", err)
}

// reload serves POST /api/v1/reload.
func (a *API) reload(*http.Request) (any, error) {
	report, err := a.Reload()
	if err != nil && report.Outcome == api.ReloadRefused {
		return nil, problem.New(problem.BadConfig, err.Error())
	}
	return report, nil
}
