package rights

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"weir/capacity/event"
)

// An endpoint answers requests as the test says.
type endpoint struct {
	asked  atomic.Int64
	mu     sync.Mutex
	answer func(*http.Request) (*http.Response, error)
}

func (e *endpoint) RoundTrip(r *http.Request) (*http.Response, error) {
	e.asked.Add(1)
	e.mu.Lock()
	f := e.answer
	e.mu.Unlock()
	return f(r)
}

func (e *endpoint) with(f func(*http.Request) (*http.Response, error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.answer = f
}

func (e *endpoint) says(status int, kind, body string) {
	e.with(func(*http.Request) (*http.Response, error) { return respond(status, kind, body), nil })
}

func respond(status int, kind, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}}, Body: io.NopCloser(strings.NewReader(body))}
}

func hangs(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// fetching runs f in a synctest bubble, with rights that fetch keys from an
// endpoint.
func fetching(t *testing.T, refresh time.Duration, f func(t *testing.T, e *endpoint, r *Rights, told func() int)) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		e.with(hangs)
		var mu sync.Mutex
		var events []event.Event
		r, err := New(Config{Network: "net", Refresh: refresh, JWKS: "https://keys.example.org/set?key=secret", HTTP: &http.Client{Transport: e}, Event: func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			events = append(events, e)
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { _ = r.Run(ctx); close(ran) }()
		f(t, e, r, func() int {
			mu.Lock()
			defer mu.Unlock()
			return len(events)
		})
		cancel()
		<-ran
		for _, e := range events {
			if strings.Contains(e.Detail, "secret") {
				t.Errorf("the URL's key is in %q", e.Detail)
			}
		}
	})
}

// Whatever the endpoint does, its last keys stay in force, a failure is logged
// once, and fetches are bounded.
func TestEndpointThatFails(t *testing.T) {
	k := newKey(t, "k1")
	fetching(t, 0, func(t *testing.T, e *endpoint, r *Rights, told func() int) {
		token := sign(t, k, func(t *Token) { t.Expires = time.Now().Add(100 * time.Hour) })
		if _, err := r.Check(t.Context(), view(token)); reasonOf(err) != NoKeys {
			t.Errorf("while it has never answered: %v", err)
		}
		e.says(200, "application/json", setOf(k))
		time.Sleep(15 * time.Second)
		g, err := r.Check(t.Context(), view(token))
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		g.MarkUsed()
		for name, f := range map[string]func(*http.Request) (*http.Response, error){
			"hangs":      hangs,
			"refuses":    func(*http.Request) (*http.Response, error) { return nil, syscall.ECONNREFUSED },
			"has a page": func(*http.Request) (*http.Response, error) { return respond(200, "text/html", "<html>"), nil },
			"has 5 MB": func(*http.Request) (*http.Response, error) {
				return respond(200, "application/json", `{"keys":[`+strings.Repeat(" ", 5<<20)+`]}`), nil
			},
			"fails": func(*http.Request) (*http.Response, error) { return respond(500, "", ""), nil },
			"redirects": func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 302, Header: http.Header{"Location": {"http://127.0.0.1/"}}, Body: http.NoBody}, nil
			},
			"is cut": func(*http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(io.MultiReader(strings.NewReader(`{"keys":`), cut{}))}, nil
			},
			"has RSA only": func(*http.Request) (*http.Response, error) {
				return respond(200, "application/json", `{"keys":[{"kty":"RSA"}]}`), nil
			},
			"is not changed": func(*http.Request) (*http.Response, error) { return respond(304, "", ""), nil },
		} {
			e.with(f)
			events, before := told(), e.asked.Load()
			time.Sleep(10 * time.Minute)
			asked := e.asked.Load() - before
			if most, least := int64(600/4), int64(600/17); asked > most || asked < least {
				t.Errorf("an endpoint that %s was asked %d times in ten minutes, want %d to %d", name, asked, least, most)
			}
			if again, err := r.Check(t.Context(), view(token)); err != nil {
				t.Errorf("while it %s: %v", name, err)
			} else {
				again.Close()
			}
			if more := told() - events; name != "is not changed" && more > 1 {
				t.Errorf("that it %s is told %d times", name, more)
			}
			e.says(200, "application/json", setOf(k))
			time.Sleep(15 * time.Second)
		}
		select {
		case <-g.Done():
			t.Errorf("a right has ended by what the endpoint did: %s", g.Reason())
		default:
		}
		// A removed key ends its rights within ten seconds.
		e.says(200, "application/json", `{"keys":[]}`)
		gone := time.Now()
		<-g.Done()
		if took := time.Since(gone); took > 10*time.Second || g.Reason() != KeyRemoved {
			t.Errorf("the right ended %v after its key was gone: %s", took, g.Reason())
		}
	})
}

// cut is a body that cannot be read.
type cut struct{}

func (cut) Read([]byte) (int, error) { return 0, errors.New("cut") }

// A new key at the endpoint is found by the first token that names it, also
// under the name of an old one. Many clients with unknown keys cause at most
// one fetch every ten seconds.
func TestKeysThatAreNew(t *testing.T) {
	k, next, same := newKey(t, "k1"), newKey(t, "k2"), newKey(t, "k1")
	fetching(t, time.Hour, func(t *testing.T, e *endpoint, r *Rights, _ func() int) { // fetches from here on are caused by tokens
		e.says(200, "application/json", setOf(k))
		time.Sleep(2 * jwksAgain)
		check := func(k *PrivateKey) error {
			g, err := r.Check(t.Context(), view(sign(t, k, nil)))
			g.Close()
			return err
		}
		if err := check(k); err != nil {
			t.Fatal(err)
		}
		e.says(200, "application/json", setOf(k, next))
		if err := check(next); err != nil {
			t.Errorf("a new key: %v", err)
		}
		time.Sleep(jwksAgain)
		e.says(200, "application/json", setOf(same))
		if err := check(same); err != nil {
			t.Errorf("a new key under an old name: %v", err)
		}
		time.Sleep(jwksAgain)
		before := e.asked.Load()
		e.with(func(r *http.Request) (*http.Response, error) {
			time.Sleep(time.Second)
			return respond(200, "application/json", setOf(same)), nil
		})
		began := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				for range 20 {
					if err := check(next); reasonOf(err) != UnknownKey {
						t.Error(err)
					}
					time.Sleep(time.Second)
				}
			})
		}
		all.Wait()
		if asked, most := e.asked.Load()-before, int64(time.Since(began)/jwksAgain)+1; asked > most {
			t.Errorf("it was asked %d times in %v, want %d at most", asked, time.Since(began), most)
		}
	})
}
