package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weir/capacity"
)

var provisionInput = Input{
	Action: "provision", Region: "eu", Reason: "sessions", Join: "token", Request: "r1", Network: "open",
	Need: &Need{capacity.View, 2_500_000, 300, "demo"},
}

const provisionJSON = `{"action":"provision","region":"eu","need":{"purpose":"view","uplink":2500000,"packets":300,"stream":"demo"},"reason":"sessions","join":"token","request":"r1","network":"open"}`

func TestHookCommand(t *testing.T) {
	dir := t.TempDir()
	read := filepath.Join(dir, "read")
	const hangs = 100 * time.Second
	for name, c := range map[string]struct {
		command string
		want    string // of the error; "": none
		logged  string
	}{
		"it gets JSON on standard input": {"cat >" + read, "", ""},
		"it fails":                       {"echo out of money >&2; exit 3", "exit status 3", "out of money"},
		"it is not there":                {"/no/such/hook", "exit status 127", "hook failed"},
		"it hangs, with a child that holds its pipes":        {fmt.Sprintf("sleep %[1]d & sleep %[1]d", hangs/time.Second), "not ended within", "hook failed"},
		"it ignores signals":                                 {"trap '' TERM INT HUP; while :; do sleep 1; done", "not ended within", ""},
		"it prints without end":                              {"cat /dev/zero", "printed more than", ""},
		"it prints garbage and succeeds":                     {"head -c 1000 /dev/urandom", "", ""},
		"it does not read what it is given":                  {"exec <&-; true", "", ""},
		"it leaves a process behind that holds the pipes":    {"sleep 2 & true", "", ""},
		"its garbage is logged as text when it fails":        {`printf 'a\377\376b'; false`, "exit status 1", "a.b"},
		"only the end of what it printed is logged, of much": {"head -c 60000 /dev/zero | tr '\\0' x; echo the end; false", "exit status 1", "the end"},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			h, err := New("provision", c.command, "", time.Second, slog.New(slog.NewTextHandler(&log, nil)))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			err = h.Run(t.Context(), provisionInput)
			if took := time.Since(began); took >= hangs {
				t.Errorf("it took %v", took)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("run = %v, want %q", err, c.want)
			}
			if !strings.Contains(log.String(), c.logged) || log.Len() > 2*hookTail {
				t.Errorf("logged %d bytes, want %q: %.300s", log.Len(), c.logged, log.String())
			}
		})
	}
	if b, err := os.ReadFile(read); err != nil || string(b) != provisionJSON {
		t.Errorf("it was given %s, %v\nwant %s", b, err, provisionJSON)
	}
	var back Input
	if err := json.Unmarshal([]byte(provisionJSON), &back); err != nil || back.Need == nil || *back.Need != *provisionInput.Need {
		t.Errorf("read back as %+v, %v", back, err)
	}
}

func TestHookURL(t *testing.T) {
	mux := http.NewServeMux()
	got := make(chan string, 1)
	mux.HandleFunc("POST /ok", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- r.Header.Get("Content-Type") + " " + string(b)
		w.WriteHeader(http.StatusAccepted)
	})
	mux.HandleFunc("POST /hang", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices a closed connection only after the body
		<-r.Context().Done()
	})
	mux.HandleFunc("POST /flood", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	for path, want := range map[string]string{"/ok": "", "/gone": "404", "/hang": "not ended within", "/flood": "printed more than"} {
		h, err := New("provision", "", server.URL+path, time.Second, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		err = h.Run(t.Context(), provisionInput)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: run = %v, want %q", path, err, want)
		}
	}
	if g := <-got; g != "application/json "+provisionJSON {
		t.Errorf("it was sent %s", g)
	}
	h := Hook{URL: "http://127.0.0.1:1/", timeout: time.Second, log: slog.New(slog.DiscardHandler)}
	if err := h.Run(t.Context(), provisionInput); err == nil {
		t.Error("a URL where nobody listens: no error")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the node ends"))
	h.command, h.URL = "sleep 10", ""
	if err := h.Run(ctx, provisionInput); err == nil || !strings.Contains(err.Error(), "the node ends") {
		t.Errorf("while the node ends: %v", err)
	}
}
