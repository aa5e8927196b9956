package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestEmbedAncestors(t *testing.T) {
	for _, c := range []struct {
		name  string
		given []string
		want  []string
		bad   string // in the error
	}{
		{"without any, everybody", nil, []string{"*"}, ""},
		{"everybody", []string{"*"}, []string{"*"}, ""},
		{"nobody: there is no page", []string{"none"}, nil, ""},
		{"the node's own pages", []string{"self"}, []string{"'self'"}, ""},
		{"origins", []string{"https://www.example.org", "http://localhost:3000", "https://*.example.org:8443"},
			[]string{"https://www.example.org", "http://localhost:3000", "https://*.example.org:8443"}, ""},
		{"a slash at the end is no path", []string{"https://www.example.org/"}, []string{"https://www.example.org"}, ""},
		{"nobody and somebody", []string{"none", "https://a.example"}, nil, "stands alone"},
		{"everybody and somebody", []string{"https://a.example", "*"}, nil, "stands alone"},
		{"no scheme", []string{"www.example.org"}, nil, "want an origin"},
		{"a path", []string{"https://www.example.org/page"}, nil, "want an origin"},
		{"another directive", []string{"https://www.example.org; script-src *"}, nil, "want an origin"},
		{"another source", []string{"https://www.example.org *"}, nil, "want an origin"},
		{"a keyword", []string{"'unsafe-inline'"}, nil, "want an origin"},
		{"an IPv6 address, which policies do not know", []string{"http://[::1]:8080"}, nil, "want an origin"},
		{"a user", []string{"https://me@example.org"}, nil, "want an origin"},
		{"nothing", []string{""}, nil, "want an origin"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Framing(c.given)
			if c.bad != "" {
				if err == nil || !strings.Contains(err.Error(), c.bad) || !strings.Contains(err.Error(), "--embed-origins") {
					t.Errorf("err = %v, want one of --embed-origins with %q", err, c.bad)
				}
				return
			}
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("= %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

// No accepted origin ends the directive or begins another.
func FuzzEmbedAncestors(f *testing.F) {
	for _, s := range []string{"*", "self", "none", "https://www.example.org", "https://*.example.org:*", "http://a;b", "https://a\nb", "https://a,b", "https://[::1]"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := Framing([]string{s})
		if err == nil && len(got) > 0 && strings.ContainsAny(got[0], "; ,\r\n\t\"") {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}

// A thousand players of one stream cost one search.
func TestAlternativesAreLookedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var searches atomic.Int32
		a := newAlternatives(func(ctx context.Context, stream string) []string {
			time.Sleep(time.Second) // of the bubble
			return []string{fmt.Sprintf("http://%s-%d", stream, searches.Add(1))}
		})
		ask := func(stream string) string {
			urls, err := a.of(t.Context(), stream)
			if err != nil {
				t.Error(err)
				return ""
			}
			return urls[0]
		}
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				if got := ask("demo"); got != "http://demo-1" {
					t.Errorf("got %s", got)
				}
			})
		}
		all.Wait()
		if got := ask("other"); got != "http://other-2" {
			t.Errorf("another stream got %s", got)
		}
		time.Sleep(alternativesAge)
		if got := ask("demo"); got != "http://demo-3" {
			t.Errorf("after %v it is %s", alternativesAge, got)
		}

		// A client that goes away does not take the answer from the others that
		// wait.
		time.Sleep(2 * alternativesAge)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := a.of(gone, "demo"); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if got := ask("demo"); got != "http://demo-4" {
			t.Errorf("got %s", got)
		}
	})
}

// Stream names made up by clients do not fill the memory.
func TestAlternativesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAlternatives(func(context.Context, string) []string { return []string{} })
		status := func(stream string) int {
			w := httptest.NewRecorder()
			a.serve(w, httptest.NewRequest("GET", "/nodes?stream="+stream, nil))
			if got := w.Header().Get("Access-Control-Allow-Origin"); got != "*" {
				t.Errorf("Access-Control-Allow-Origin = %q", got)
			}
			return w.Code
		}
		for i := range alternativesKept {
			if got := status(fmt.Sprint("s", i)); got != http.StatusOK {
				t.Fatalf("stream %d: %d", i, got)
			}
		}
		if got := status("more"); got != http.StatusServiceUnavailable && got != http.StatusTooManyRequests {
			t.Errorf("one too many: %d", got)
		}
		if got := status("s1"); got != http.StatusOK {
			t.Errorf("a known one: %d", got)
		}
		if got := status("a//b"); got != http.StatusBadRequest {
			t.Errorf("no name of a stream: %d", got)
		}
		time.Sleep(alternativesAge + time.Second)
		if got := status("more"); got != http.StatusOK || len(a.known) != 1 {
			t.Errorf("once the others are old: %d, and %d are kept", got, len(a.known))
		}
	})
}
