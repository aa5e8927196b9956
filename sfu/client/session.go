package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"weir/capacity/scope"
	"weir/sfu/problem"
)

const (
	maxHops     = 5
	maxAnswer   = 64 << 10 // bytes of SDP
	maxReason   = 1 << 10  // bytes quoted of a refusal
	sdpType     = "application/sdp"
	deleteTime  = 2 * time.Second // how long Close waits for the server
	retryTime   = time.Second     // between attempts, where the server names no time
	minRetry    = 100 * time.Millisecond
	httpTimeout = 30 * time.Second // for a server that holds the offer, or is silent
)

var (
	// ErrBadURL means that the given URL is no http or https URL of an
	// endpoint.
	ErrBadURL = errors.New("not an http or https URL")
	// ErrNoConnection means that the server was not reached: its HTTP port, or
	// its media port after a valid answer.
	ErrNoConnection = errors.New("no connection")
	// ErrNoMedia is the ErrNoConnection of a media port.
	ErrNoMedia = fmt.Errorf("%w", ErrNoConnection)
	// ErrBadAnswer means that the server answered 201 but not with an SDP answer
	// that fits the offer, or redirected in a way that cannot be followed.
	ErrBadAnswer = errors.New("bad answer")
)

// Refused is the server's answer to an offer if it is not 201 Created.
type Refused struct {
	URL        string // the last URL tried, after redirects
	Status     int
	Body       string        // its text, on one line: at most a kilobyte
	Code       problem.Code  // of a weir server, else ""
	RetryAfter time.Duration // 0 if the server named none
	TraceID    string        // trace ID of the request in the server's log and events; "" if it named none
}

func (r *Refused) Error() string {
	s := fmt.Sprintf("refused by %s: %d %s", withoutQuery(r.URL), r.Status, http.StatusText(r.Status))
	if r.Body != "" {
		s += fmt.Sprintf(": %q", r.Body)
	}
	if r.RetryAfter > 0 {
		s += fmt.Sprintf(" (retry after %v)", r.RetryAfter.Round(time.Second))
	}
	if r.TraceID != "" {
		s += fmt.Sprintf(" (trace %s)", r.TraceID)
	}
	return s
}

// session is the HTTP side of a WHIP or WHEP session (RFC 9725).
type session struct {
	http     *http.Client
	gate     *scope.Gate // decides to which nodes servers may redirect us
	posted   time.Time   // when the POST that led to the answer was first sent
	answered time.Time
	answer   string
	hops     []string // URLs tried, the last one answered 201
	resource *url.URL // URL of the session, for DELETE; nil if the server named none
	etag     string
}

// httpClient copies c, or makes a new client, that does not follow redirects by
// itself.
func httpClient(c *http.Client) *http.Client {
	own := http.Client{}
	if c != nil {
		own = *c
	} else {
		own.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &own
}

func parseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%w: %q; expected something like http://127.0.0.1:8080/whip/demo", ErrBadURL, withoutQuery(raw))
	}
	return u, nil
}

// withoutQuery removes the query of a URL for people: it may hold a ticket.
func withoutQuery(url string) string {
	before, _, _ := strings.Cut(url, "?")
	return before
}

// negotiate posts offer to u and follows up to maxHops redirects. After a 409
// or 503 it tries again, from u on, until wait has passed since the first
// attempt. ctx bounds everything.
func negotiate(ctx context.Context, c *http.Client, u *url.URL, offer string, wait time.Duration, log *slog.Logger) (*session, error) {
	start := time.Now()
	for {
		s, err := attempt(ctx, c, u, offer)
		var refused *Refused
		if !errors.As(err, &refused) || refused.Status != http.StatusConflict && refused.Status != http.StatusServiceUnavailable {
			return s, err
		}
		pause := max(refused.RetryAfter, minRetry)
		if refused.RetryAfter == 0 {
			pause = retryTime
		}
		if left := wait - time.Since(start); left <= 0 {
			return nil, err
		} else if pause > left {
			pause = left // one last try at the end of the wait
		}
		log.Info("refused, waiting", "url", refused.URL, "status", refused.Status, "reason", refused.Body, "retry", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// attempt posts offer to u and follows its redirects.
func attempt(ctx context.Context, c *http.Client, u *url.URL, offer string) (*session, error) {
	s := &session{http: c, posted: time.Now(), gate: gateOf(u)}
	for {
		s.hops = append(s.hops, u.String())
		next, err := s.post(ctx, u, offer)
		if err != nil || next == nil {
			return s, err
		}
		if len(s.hops) > maxHops {
			var way []string
			for _, hop := range append(s.hops, next.String()) {
				way = append(way, withoutQuery(hop))
			}
			return nil, fmt.Errorf("%w: more than %d redirects: %s", ErrBadAnswer, maxHops, strings.Join(way, " → "))
		}
		u = next
	}
}

// gateOf allows redirects to nodes in the scope of u, the server that our user
// named, and, from a server on this machine, also within its site.
func gateOf(u *url.URL) *scope.Gate {
	kind := scope.KindOfURL(u.String())
	g := scope.NewGate(nil, kind == scope.Loopback)
	g.Own(scope.Redirect, func() []scope.Kind { return []scope.Kind{kind} })
	return g
}

// leads returns an error if the server at u must not redirect us to next.
func (s *session) leads(u, next *url.URL) error {
	if next.Host == u.Host {
		return nil
	}
	return s.gate.CheckURL(scope.Redirect, next.String())
}

// post sends offer to u. It returns the next URL if it is redirected.
func (s *session) post(ctx context.Context, u *url.URL, offer string) (*url.URL, error) {
	ctx, cancel := context.WithTimeout(ctx, httpTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(offer))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadURL, err)
	}
	req.Header.Set("Content-Type", sdpType)
	req.Header.Set("Accept", sdpType)
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, unreached(u, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, unreached(u, err)
	}
	switch resp.StatusCode {
	case http.StatusCreated:
		return nil, s.accept(u, resp.Header, body)
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		next, err := u.Parse(resp.Header.Get("Location"))
		if err != nil || resp.Header.Get("Location") == "" {
			return nil, fmt.Errorf("%w: %s redirects to %q", ErrBadAnswer, withoutQuery(u.String()), withoutQuery(resp.Header.Get("Location")))
		}
		if _, err := parseURL(next.String()); err != nil {
			return nil, fmt.Errorf("%w: %s redirects: %w", ErrBadAnswer, withoutQuery(u.String()), err)
		}
		if err := s.leads(u, next); err != nil {
			return nil, fmt.Errorf("%w: %s redirects to %s: %w", ErrBadAnswer, u, next.Host, err)
		}
		return next, nil
	}
	said := problem.Parse(resp.StatusCode, resp.Header.Get("Content-Type"), body)
	return nil, &Refused{
		URL:        u.String(),
		Status:     resp.StatusCode,
		Body:       reason([]byte(said.Detail)),
		Code:       said.Code,
		RetryAfter: retryAfter(resp.Header.Get("Retry-After"), time.Now()),
		TraceID:    said.TraceID,
	}
}

// unreached is an ErrNoConnection to u in our own words: the errors of net/http
// contain the URL, and a ticket that may be in it.
func unreached(u *url.URL, err error) error {
	text := fmt.Sprintf("%v to %s: %s", ErrNoConnection, u.Host, problem.Cause(err))
	// A TLS port takes a plain request for a malformed one.
	if u.Scheme == "http" && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)) {
		text += "; if it speaks https, say https:// instead of http://"
	}
	return &unreachedError{text, ErrNoConnection, err}
}

type unreachedError struct {
	text        string
	kind, cause error // for callers to branch on; cause may be nil
}

func (e *unreachedError) Error() string   { return e.text }
func (e *unreachedError) Unwrap() []error { return []error{e.kind, e.cause} }

// accept reads a 201 answer from u. It records the resource even if the answer
// is bad, so that it can be deleted.
func (s *session) accept(u *url.URL, h http.Header, body []byte) error {
	s.answered = time.Now()
	at := withoutQuery(u.String())
	s.etag = h.Get("ETag")
	if l := h.Get("Location"); l != "" {
		r, err := u.Parse(l)
		if err != nil {
			return fmt.Errorf("%w: %s: Location %q is no URL", ErrBadAnswer, at, withoutQuery(l))
		}
		if err := s.leads(u, r); err != nil {
			return fmt.Errorf("%w: %s: Location at %s: %w", ErrBadAnswer, u, r.Host, err)
		}
		s.resource = r
	}
	if t, _, err := mime.ParseMediaType(h.Get("Content-Type")); err != nil || t != sdpType {
		return fmt.Errorf("%w: %s: content type %q; expected %s", ErrBadAnswer, at, h.Get("Content-Type"), sdpType)
	}
	if len(body) > maxAnswer {
		return fmt.Errorf("%w: %s: more than %d bytes", ErrBadAnswer, at, maxAnswer)
	}
	if !bytes.HasPrefix(body, []byte("v=0")) {
		return fmt.Errorf("%w: %s: %q; expected SDP, which begins with v=0", ErrBadAnswer, at, reason(body[:min(len(body), 80)]))
	}
	s.answer = string(body)
	return nil
}

// end deletes the session at the server and closes connections. It is no error
// if the server has forgotten the session already. It may be called on a
// session whose setup failed, nil included.
func (s *session) end() error {
	if s == nil {
		return nil
	}
	defer s.http.CloseIdleConnections()
	if s.resource == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), deleteTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, s.resource.String(), nil)
	if err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	if s.etag != "" {
		req.Header.Set("If-Match", s.etag)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return fmt.Errorf("end session: %w", unreached(s.resource, err))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode < 300, resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		return nil
	}
	return fmt.Errorf("end session: DELETE %s: %s: %q", s.resource, resp.Status, reason([]byte(problem.Read(resp).Detail)))
}

// url returns the URL where the offer was accepted, after redirects.
func (s *session) url() string { return s.hops[len(s.hops)-1] }

// reason makes a server's text printable: bounded, valid and on one line.
func reason(body []byte) string {
	s := strings.ToValidUTF8(string(body[:min(len(body), maxReason)]), "")
	return strings.Join(strings.Fields(s), " ")
}

// retryAfter parses a Retry-After header, seconds or a date (RFC 9110 §10.2.3),
// as a time from now on; 0 if there is none.
func retryAfter(h string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(h, 10, 31); err == nil {
		return time.Duration(n) * time.Second
	}
	if t, err := http.ParseTime(h); err == nil {
		return max(0, t.Sub(now))
	}
	return 0
}
