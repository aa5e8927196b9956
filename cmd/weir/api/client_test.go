package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"weir/sfu/problem"
)

func TestClientTellsFailuresApart(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/status":
			fmt.Fprintln(w, `{"name":"n1","sessions":3}`)
		case "/api/v1/links":
			fmt.Fprintln(w, `<html>`)
		case "/api/v1/sessions":
			w.Header().Set("Content-Length", "100")
			fmt.Fprintln(w, `[`)
		default:
			problem.New(problem.NotFound, "nothing is there").Write(w)
		}
	}))
	defer s.Close()
	c := Client{URL: s.URL, HTTP: s.Client()}
	if got, err := c.Status(t.Context()); err != nil || got.Name != "n1" {
		t.Errorf("Status = %q, %v", got.Name, err)
	}
	if _, err := c.Links(t.Context()); err == nil || !strings.Contains(err.Error(), "not the answer of a weir node") {
		t.Errorf("of another server's page: %v", err)
	}
	var unreachable *UnreachableError
	if _, err := c.Sessions(t.Context()); !errors.As(err, &unreachable) {
		t.Errorf("of an answer that breaks off: %v", err)
	}
	var refused *RefusedError
	if _, err := c.Decisions(t.Context()); !errors.As(err, &refused) || refused.Said.Code != problem.NotFound || !strings.Contains(err.Error(), "/api/v1/decisions: 404 Not Found: nothing is there") {
		t.Errorf("of a refusal: %v", err)
	}
	nobody := Client{URL: "http://127.0.0.1:1"}
	if _, err := nobody.Status(t.Context()); !errors.As(err, &unreachable) || !strings.Contains(err.Error(), "no node answers at http://127.0.0.1:1") {
		t.Errorf("where nobody listens: %v", err)
	}
}

func TestClientReadsEventsToTheirEnd(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, ": hello\n\ndata: 1\n\ndata: 2\n\n")
	}))
	defer s.Close()
	c := Client{URL: s.URL, HTTP: s.Client()}
	var got []string
	err := c.Events(t.Context(), "/events", func(data []byte) error { got = append(got, string(data)); return nil })
	if !errors.Is(err, ErrClosed) || strings.Join(got, " ") != "1 2" {
		t.Errorf("Events = %v after %v, want ErrClosed after 1 and 2", err, got)
	}
	enough := errors.New("enough")
	if err := c.Events(t.Context(), "/events", func([]byte) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Events = %v, want the callback's error", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	err = c.Events(ended, "/events", func([]byte) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) && !errors.Is(err, ErrClosed) {
		t.Errorf("Events = %v after its context", err)
	}
}
