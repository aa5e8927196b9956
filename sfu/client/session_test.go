package client

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serve starts a server that answers every request with f.
func serve(t *testing.T, f http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	return s
}

// tryPublish publishes the pattern, which must fail.
func tryPublish(t *testing.T, ctx context.Context, url string, wait time.Duration) error {
	t.Helper()
	p, err := Publish(ctx, PublishConfig{URL: url, Media: Pattern(), Wait: wait})
	if err == nil {
		p.Close()
		t.Fatalf("published to %s", url)
	}
	return err
}

func TestRefused(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "no node has room:\n  sessions\x00\xff\n")
	})
	err := tryPublish(t, t.Context(), s.URL+"/whip/demo", 0)
	var refused *Refused
	if !errors.As(err, &refused) {
		t.Fatalf("error %v, want a *Refused", err)
	}
	if refused.Status != 503 || refused.RetryAfter != 7*time.Second || refused.URL != s.URL+"/whip/demo" {
		t.Errorf("refused %+v", refused)
	}
	if want := `503 Service Unavailable: "no node has room: sessions`; !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "retry after 7s") {
		t.Errorf("error %q does not quote %q and the time", err, want)
	}
	if _, err := View(t.Context(), ViewConfig{URL: s.URL + "/whep/demo"}); !errors.As(err, &refused) {
		t.Errorf("view: %v, want a *Refused", err)
	}
}

func TestWaitAsksAgain(t *testing.T) {
	var asked atomic.Int32
	echo := newEchoServer(t, 2)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch asked.Add(1) {
		case 1:
			w.Header().Set("Retry-After", "0")
			http.Error(w, "not live yet", http.StatusConflict)
		case 2:
			w.Header().Set("Retry-After", time.Now().Format(http.TimeFormat)) // has passed by now
			http.Error(w, "no room yet", http.StatusServiceUnavailable)
		default:
			http.Redirect(w, r, echo.URL+"/whip", http.StatusTemporaryRedirect)
		}
	})
	p, err := Publish(t.Context(), PublishConfig{URL: s.URL, Media: Pattern(), Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times, want 3", n)
	}
	if st := p.Stats(); st.Connected > 5*time.Second {
		t.Errorf("connected %v after the POST: counted from the first attempt", st.Connected)
	}
}

// Pauses between attempts, on fake time: transport is a function.
func TestWaitPauses(t *testing.T) {
	for _, c := range []struct {
		name       string
		retryAfter string
		status     int
		wait       time.Duration
		want       []time.Duration
	}{
		{"without waiting there is one attempt", "1", 503, 0, []time.Duration{0}},
		{"the server's time is kept", "2", 503, 5 * time.Second, []time.Duration{0, 2 * time.Second, 4 * time.Second, 5 * time.Second}},
		{"a server that names none is asked each second", "", 409, 2500 * time.Millisecond, []time.Duration{0, time.Second, 2 * time.Second, 2500 * time.Millisecond}},
		{"a time past the end is cut to it", "60", 503, 3 * time.Second, []time.Duration{0, 3 * time.Second}},
		{"what waiting cannot cure is not asked again", "1", 404, 5 * time.Second, []time.Duration{0}},
	} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			var at []time.Duration
			hc := &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
				at = append(at, time.Since(start))
				return &http.Response{
					StatusCode: c.status, Request: r,
					Header: http.Header{"Retry-After": {c.retryAfter}},
					Body:   io.NopCloser(strings.NewReader("full")),
				}, nil
			})}
			u, err := parseURL("http://node.test/whip/a")
			if err != nil {
				t.Fatal(err)
			}
			_, err = negotiate(t.Context(), hc, u, "v=0", c.wait, slog.New(slog.DiscardHandler))
			var refused *Refused
			if !errors.As(err, &refused) || refused.Status != c.status {
				t.Errorf("%s: %v, want a refusal with %d", c.name, err, c.status)
			}
			if len(at) != len(c.want) {
				t.Fatalf("%s: asked at %v, want %v", c.name, at, c.want)
			}
			for i := range at {
				if at[i] != c.want[i] {
					t.Errorf("%s: asked at %v, want %v", c.name, at, c.want)
				}
			}
		})
	}
}

type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A full node redirects the client, with method and body, and everything that
// follows goes to the redirect's target.
func TestRedirect(t *testing.T) {
	echo := newEchoServer(t, 2)
	var offers atomic.Int32
	second := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if body, _ := io.ReadAll(r.Body); r.Method == http.MethodPost && strings.HasPrefix(string(body), "v=0") {
			offers.Add(1)
		}
		w.Header().Set("Location", echo.URL+"/whip?ticket=x")
		w.WriteHeader(http.StatusPermanentRedirect)
	})
	first := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", strings.TrimPrefix(second.URL, "http:")+"/whip") // relative to the scheme
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	p, err := Publish(t.Context(), PublishConfig{URL: first.URL + "/whip/a", Media: Pattern()})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.NodeURL(), echo.URL+"/whip?ticket=x"; got != want {
		t.Errorf("served at %s, want %s", got, want)
	}
	if st := p.Stats(); len(st.Hops) != 3 || st.Hops[1] != second.URL+"/whip" || st.URL != p.NodeURL() {
		t.Errorf("hops %v", st.Hops)
	}
	if offers.Load() != 1 {
		t.Errorf("the second node saw %d offers", offers.Load())
	}
	if err := p.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	// The Location was relative, and the ETag goes with the DELETE.
	echo.mu.Lock()
	defer echo.mu.Unlock()
	if len(echo.deleted) != 1 || echo.deleted[0] != `"one"` || len(echo.pcs) != 0 {
		t.Errorf("deleted with %q; %d sessions left", echo.deleted, len(echo.pcs))
	}
}

func TestRedirectsThatLeadNowhere(t *testing.T) {
	for _, c := range []struct {
		name     string
		location string
		status   int
		is       error
		text     string
	}{
		{"in a circle", "/again", 307, ErrBadAnswer, "more than 5 redirects"},
		{"to nowhere", "", 307, ErrBadAnswer, "redirects to"},
		{"to where clouds keep secrets", "http://169.254.169.254/latest/", 307, ErrBadAnswer, "address not allowed"},
		{"to another scheme", "ftp://127.0.0.1/", 308, ErrBadAnswer, "not an http or https URL"},
		{"to a dead port", "http://127.0.0.1:1/whip", 307, ErrNoConnection, "refused"},
		{"by a status that turns POST into GET", "/other", 302, nil, "302 Found"},
	} {
		asked := 0
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			asked++
			w.Header().Set("Location", c.location)
			w.WriteHeader(c.status)
		})
		err := tryPublish(t, t.Context(), s.URL, 0)
		var refused *Refused
		if c.is != nil && !errors.Is(err, c.is) || c.is == nil && !errors.As(err, &refused) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", c.name, err, c.text)
		}
		if asked > maxHops+1 {
			t.Errorf("%s: asked %d times", c.name, asked)
		}
	}
}

// A server that answers 201 with an invalid body has made a session, which must
// be deleted.
func TestBadAnswers(t *testing.T) {
	for _, c := range []struct {
		name, contentType, body, text string
	}{
		{"HTML", "text/html", "<html>", `content type "text/html"; expected application/sdp`},
		{"no content type", "", "v=0", "expected application/sdp"},
		{"empty", "application/sdp", "", "expected SDP"},
		{"an error in disguise", "application/sdp", "not found", `"not found"; expected SDP`},
		{"without end", "application/sdp", "v=0" + strings.Repeat("\r\na=x", 100000), "more than 65536 bytes"},
		{"of another session", "application/sdp", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", "publish: bad answer"},
	} {
		deleted := make(chan string, 1)
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodDelete {
				deleted <- r.URL.Path
				return
			}
			w.Header().Set("Location", "session/7")
			if w.Header()["Content-Type"] = nil; c.contentType != "" {
				w.Header().Set("Content-Type", c.contentType)
			}
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, c.body)
		})
		err := tryPublish(t, t.Context(), s.URL+"/whip/demo", 0)
		if !errors.Is(err, ErrBadAnswer) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %q", c.name, err, c.text)
		}
		select {
		case path := <-deleted:
			if path != "/whip/session/7" {
				t.Errorf("%s: deleted %s", c.name, path)
			}
		default:
			t.Errorf("%s: the session was not deleted", c.name)
		}
	}
}

func TestNoConnection(t *testing.T) {
	if err := tryPublish(t, t.Context(), "http://127.0.0.1:1/whip", time.Minute); !errors.Is(err, ErrNoConnection) {
		t.Errorf("dead port: %v", err)
	}
	for _, url := range []string{"", "127.0.0.1:8080/whip", "ftp://127.0.0.1/", "http:///whip", "http://[::1/"} {
		if err := tryPublish(t, t.Context(), url, 0); !errors.Is(err, ErrBadURL) {
			t.Errorf("%q: %v", url, err)
		}
	}

	hang := make(chan struct{})
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	defer close(hang)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	const wait = time.Minute
	err := tryPublish(t, ctx, s.URL, wait)
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNoConnection) {
		t.Errorf("hanging server: %v", err)
	}
	if took := time.Since(start); took >= wait {
		t.Errorf("hanging server: returned after %v", took)
	}
}

// A server's answer is valid and its media port does not exist.
func TestNoMedia(t *testing.T) {
	echo := newEchoServer(t, 2)
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodDelete {
			return
		}
		resp, err := http.Post(echo.URL+"/whip", "application/sdp", r.Body)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		w.Header().Set("Content-Type", "application/sdp")
		w.WriteHeader(http.StatusCreated) // and no Location, which some servers forget
		for line := range strings.Lines(string(answer)) {
			if !strings.HasPrefix(line, "a=candidate") {
				io.WriteString(w, line)
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := tryPublish(t, ctx, s.URL, 0)
	if !errors.Is(err, ErrNoConnection) || !strings.Contains(err.Error(), "its media port does not") {
		t.Errorf("error %v", err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2025, 3, 1, 12, 0, 0, 0, time.UTC)
	for h, want := range map[string]time.Duration{
		"":                              0,
		"3":                             3 * time.Second,
		"-3":                            0,
		"soon":                          0,
		"99999999999":                   0,
		"Sat, 01 Mar 2025 12:00:30 GMT": 30 * time.Second,
		"Sat, 01 Mar 2025 11:00:30 GMT": 0,
	} {
		if got := retryAfter(h, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", h, got, want)
		}
	}
}

// Redirects are followed to the scope of the server, or to public addresses.
func TestServersLeadWhereTheyAre(t *testing.T) {
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"https://sfu.example.net/whep/x", "https://other.example.org/session/1", true},
		{"https://sfu.example.net/whep/x", "http://127.0.0.1:6379/", false},
		{"https://sfu.example.net/whep/x", "http://192.168.1.1/", false},
		{"http://192.168.1.7:8080/whep/x", "http://192.168.1.8:8080/whep/x", true},
		{"http://192.168.1.7:8080/whep/x", "http://localhost:8080/whep/x", false},
		{"http://127.0.0.1:8080/whep/x", "http://127.0.0.1:8090/whep/x", true},
		{"http://127.0.0.1:8080/whep/x", "http://192.168.1.8:8080/whep/x", true},
		{"http://127.0.0.1:8080/whep/x", "http://169.254.169.254/", false},
		{"http://169.254.1.1/whep/x", "http://169.254.1.1/session/1", true},
	} {
		from, err := url.Parse(tt.from)
		if err != nil {
			t.Fatal(err)
		}
		to, err := url.Parse(tt.to)
		if err != nil {
			t.Fatal(err)
		}
		if err := (&session{gate: gateOf(from)}).leads(from, to); (err == nil) != tt.want {
			t.Errorf("from %s to %s: %v, want it followed: %v", from, to, err, tt.want)
		}
	}
}
