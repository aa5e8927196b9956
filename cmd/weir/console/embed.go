package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/scope"
	"weir/cmd/weir/httpd"
	"weir/cmd/weir/web"
	"weir/dht"
	"weir/sfu/meter"
	"weir/sfu/problem"
)

// The keywords that --embed-origins takes besides origins.
const (
	embedAnywhere = "*"
	embedNowhere  = "none"
	embedSelf     = "self"
)

// embedHost matches the host and port of a source expression (CSP level 3,
// section 2.3.1); that grammar has no IPv6 addresses.
var embedHost = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:(\d{1,5}|\*))?$`)

// Framing turns --embed-origins into the sources of frame-ancestors; nil
// means that there is no embed page. Without any origins, every page may frame
// it: the embed page can only play, so a stolen click in it is worth nothing to
// the framing page. Pages that may request the stream themselves may show it
// anyway, so where --cors-origin names pages, those are the ones that may frame
// the embed page.
func Framing(origins []string) ([]string, error) {
	if len(origins) == 0 {
		return []string{embedAnywhere}, nil
	}
	var sources []string
	for _, o := range origins {
		switch {
		case o == embedAnywhere || o == embedNowhere:
			if len(origins) > 1 {
				return nil, fmt.Errorf("--embed-origins %s: it stands alone; give it or origins, not both", o)
			}
			if o == embedNowhere {
				return nil, nil
			}
			return []string{embedAnywhere}, nil
		case o == embedSelf:
			sources = append(sources, "'self'")
		default:
			u, err := url.Parse(o)
			if err != nil || (u.Scheme != "https" && u.Scheme != "http") || u.User != nil || u.RawQuery != "" || u.Fragment != "" || (u.Path != "" && u.Path != "/") || !embedHost.MatchString(u.Host) {
				return nil, fmt.Errorf("--embed-origins %s: want an origin such as https://www.example.org or https://*.example.org, self, none or *", o)
			}
			sources = append(sources, u.Scheme+"://"+u.Host)
		}
	}
	return sources, nil
}

// embed serves the resources for pages of other origins: the player's module,
// the page to be framed, and the list of other nodes for a stream.
func (p *Pages) embed(mux *http.ServeMux) {
	mux.Handle("/weir-player.js", web.Player())
	mux.HandleFunc("GET /nodes", newAlternatives(p.findAlternatives).serve)
	if p.Framing == nil {
		return
	}
	page := web.Embed(p.Framing)
	mux.Handle("/embed/", page)
	for _, name := range web.EmbedAssets {
		mux.Handle("/assets/"+name, page)
	}
}

const (
	// alternativesShown is how many other nodes a player is given.
	alternativesShown = 3
	// alternativesAge is how long the outcome of a search is used.
	alternativesAge = 10 * time.Second
	// alternativesTime bounds a search.
	alternativesTime = 3 * time.Second
	// alternativesKept bounds the streams with a cached outcome.
	alternativesKept = 256
)

// alternatives are the other nodes where players may request a stream when this
// one does not answer. However many players ask, each stream is searched for
// once in alternativesAge.
type alternatives struct {
	find func(ctx context.Context, stream string) []string // base URLs

	mu    sync.Mutex
	known map[string]*alternativesOf
}

type alternativesOf struct {
	found chan struct{} // closed once urls is set
	urls  []string
	until time.Time // end of the result's validity
}

func newAlternatives(find func(context.Context, string) []string) *alternatives {
	return &alternatives{find: find, known: map[string]*alternativesOf{}}
}

// serve answers GET /nodes?stream=NAME, to pages of every origin: the answer
// reveals no more than a redirect does.
func (a *alternatives) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	stream := r.URL.Query().Get("stream")
	if err := capacity.ValidStreamName(stream); err != nil {
		problem.New(problem.BadStreamName, err.Error()).Write(w)
		return
	}
	urls, err := a.of(r.Context(), stream)
	if errors.Is(err, errTooManyStreams) {
		problem.New(problem.TooManyWaiting, err.Error()).Retry(alternativesAge).Write(w)
		return
	}
	if err != nil {
		return // the client has gone
	}
	w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", int(alternativesAge.Seconds())))
	httpd.WriteJSON(w, struct {
		Nodes []string `json:"nodes"`
	}{urls})
}

var errTooManyStreams = fmt.Errorf("other nodes are being looked for for %d streams already", alternativesKept)

// of returns the base URLs of the nodes for stream, the best first. It fails if
// ctx ends, or with errTooManyStreams.
func (a *alternatives) of(ctx context.Context, stream string) ([]string, error) {
	now := time.Now()
	a.mu.Lock()
	e := a.known[stream]
	fresh := e == nil || now.After(e.until)
	if fresh {
		if e == nil && len(a.known) >= alternativesKept {
			for name, old := range a.known {
				if now.After(old.until) {
					delete(a.known, name)
				}
			}
			if len(a.known) >= alternativesKept {
				a.mu.Unlock()
				return nil, errTooManyStreams
			}
		}
		e = &alternativesOf{found: make(chan struct{}), until: now.Add(alternativesAge)}
		a.known[stream] = e
	}
	a.mu.Unlock()
	if fresh {
		// Keep the first caller's context values but not its cancellation:
		// others wait for the same search.
		finding, cancel := context.WithTimeout(context.WithoutCancel(ctx), alternativesTime)
		e.urls = a.find(finding, stream)
		cancel()
		close(e.found)
	}
	select {
	case <-e.found:
		return e.urls, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// findAlternatives searches for carriers of the stream and for other nodes with
// room, as a placement does, and leaves out URLs that the gate refuses for
// clients.
func (p *Pages) findAlternatives(ctx context.Context, stream string) []string {
	urls := []string{}
	exclude := []peer.ID{p.Node.ID()}
	for _, topic := range []dht.Topic{dht.StreamTopic(stream), dht.CapacityTopic()} {
		answer, err := p.Node.Seeker.Find(ctx, topic, meter.DefaultNeed(capacity.View, stream), exclude)
		if err != nil {
			p.Log.Debug("other nodes looked for in vain", "stream", stream, "topic", topic, "err", err)
		}
		for _, c := range answer.Candidates {
			r := c.Record
			if len(urls) == alternativesShown {
				return urls
			}
			if r.URL != "" && r.State == capacity.Active && !slices.Contains(urls, r.URL) && p.Gate.CheckURL(scope.Redirect, r.URL) == nil {
				urls = append(urls, r.URL)
			}
		}
	}
	return urls
}
