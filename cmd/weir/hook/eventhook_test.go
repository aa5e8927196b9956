package hook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"weir/capacity/event"
	"weir/cmd/weir/eventlog"
	"weir/cmd/weir/logs"
)

// A listener is a running event hook, with its deliveries.
type listener struct {
	*Events
	hub   *eventlog.Hub
	ended chan struct{}

	mu  sync.Mutex
	log bytes.Buffer
}

func (l *listener) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(b)
}

func (l *listener) logged() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

func listen(t *testing.T, h Hook, keys *SigningKeys, try func(context.Context, event.Event, int) error) *listener {
	t.Helper()
	l := &listener{hub: eventlog.NewHub(slog.New(slog.DiscardHandler)), ended: make(chan struct{})}
	log, err := logs.New(l, new(slog.LevelVar), "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	h.log = log
	kinds, err := ParseEventKinds("")
	if err != nil {
		t.Fatal(err)
	}
	l.Events = NewEvents(h, kinds, keys, Origin{"", "n1", "http://127.0.0.1:8080", "test"}, NewEventCounts(), l.hub)
	if try != nil {
		l.try = try
	}
	go func() {
		defer close(l.ended)
		l.Run()
	}()
	return l
}

func (l *listener) close() {
	l.hub.Close()
	<-l.ended
}

func (l *listener) count(outcome string) int {
	return int(testutil.ToFloat64(l.counts.outcomes.WithLabelValues(outcome)))
}

func opened(stream string) event.Event {
	return event.Event{Kind: event.SessionOpened, Stream: stream, Role: "viewer"}
}

// Events of a stream are delivered in order, however often one of them fails,
// and do not wait for those of another stream.
func TestEventsAreOrderedPerStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []string
		at := map[string]time.Duration{}
		began := time.Now()
		l := listen(t, Hook{}, nil, func(_ context.Context, e event.Event, try int) error {
			mu.Lock()
			defer mu.Unlock()
			if e.Stream == "bad" && e.Detail == "1" && try < 3 {
				return errors.New("not now")
			}
			got = append(got, e.Stream+e.Detail)
			at[e.Stream+e.Detail] = time.Since(began)
			return nil
		})
		for i := range 3 {
			for _, stream := range []string{"bad", "good"} {
				e := opened(stream)
				e.Detail = fmt.Sprint(i)
				l.hub.Add(e)
			}
			l.hub.Add(event.Event{Kind: event.PeerLost}) // not a subscribed kind
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		for _, stream := range []string{"bad", "good"} {
			var of []string
			for _, g := range got {
				if strings.HasPrefix(g, stream) {
					of = append(of, g)
				}
			}
			if want := []string{stream + "0", stream + "1", stream + "2"}; !slices.Equal(of, want) {
				t.Errorf("delivered %v, want %v", of, want)
			}
		}
		if at["good2"] != 0 {
			t.Errorf("the good stream waited %v", at["good2"])
		}
		// Three pauses, of 0.5, 1 and 2 s, half of each random.
		if took := at["bad2"]; took < 1750*time.Millisecond || took > 3500*time.Millisecond {
			t.Errorf("the bad stream took %v", took)
		}
		if l.count("delivered") != 6 || l.count("failed") != 0 || testutil.ToFloat64(l.counts.retries) != 3 || testutil.ToFloat64(l.counts.queued) != 0 {
			t.Errorf("delivered %d, failed %d, queued %v", l.count("delivered"), l.count("failed"), testutil.ToFloat64(l.counts.queued))
		}
		l.close()
	})
}

// An event is given up after eventTries, or at once if it is refused; the log
// reports it once a minute.
func TestEventsAreGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		tries := map[string]int{}
		l := listen(t, Hook{}, nil, func(_ context.Context, e event.Event, _ int) error {
			mu.Lock()
			defer mu.Unlock()
			tries[e.Stream]++
			if e.Stream == "refused" {
				return &refusedEvent{errors.New("the URL answered 404")}
			}
			return errors.New("it is down")
		})
		l.hub.Add(opened("down"))
		for range 3 {
			l.hub.Add(opened("refused"))
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		mu.Lock()
		if tries["down"] != eventTries || tries["refused"] != 3 {
			t.Errorf("tried %v", tries)
		}
		mu.Unlock()
		if l.count("failed") != 4 {
			t.Errorf("%d failed", l.count("failed"))
		}
		if lines := strings.Count(l.logged(), "event not delivered"); lines != 1 {
			t.Errorf("%d lines: %s", lines, l.logged())
		}
		time.Sleep(2 * time.Second)
		l.hub.Add(opened("refused"))
		synctest.Wait()
		if log := l.logged(); strings.Count(log, "event not delivered") != 2 || !strings.Contains(log, "others_since=3") {
			t.Errorf("logged %s", log)
		}
		l.close()
	})
}

// A receiver may send Retry-After, within bounds.
func TestReceiverSaysWhenToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var mu sync.Mutex
		var at []time.Duration
		l := listen(t, Hook{}, nil, func(_ context.Context, _ event.Event, try int) error {
			mu.Lock()
			defer mu.Unlock()
			at = append(at, time.Since(began))
			if try < 2 {
				return &laterEvent{errors.New("429"), time.Duration(10+990*try) * time.Second}
			}
			return nil
		})
		l.hub.Add(opened("demo"))
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if want := []time.Duration{0, 10 * time.Second, 10*time.Second + eventPauseMost}; !slices.Equal(at, want) {
			t.Errorf("tried at %v, want %v", at, want)
		}
		l.close()
	})
}

// While a receiver hangs, a bounded number of events is kept, no sender waits,
// and lost events are counted, and logged once.
func TestEventQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		l := listen(t, Hook{}, nil, func(ctx context.Context, _ event.Event, _ int) error {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return ctx.Err()
		})
		const each = eventQueueEach + 50
		for i := range 2 * eventsAtOnce {
			for range each {
				l.hub.Add(opened(fmt.Sprint("s", i)))
			}
			synctest.Wait()
		}
		if got := testutil.ToFloat64(l.counts.queued); got != eventQueue {
			t.Errorf("%v wait, want %d", got, eventQueue)
		}
		l.hub.Add(opened("s0"))
		synctest.Wait()
		if got, want := l.count("dropped"), 2*eventsAtOnce*each+1-eventQueue; got != want {
			t.Errorf("%d dropped, want %d", got, want)
		}
		if n := strings.Count(l.logged(), "events dropped"); n != 1 {
			t.Errorf("told %d times: %s", n, l.logged())
		}
		close(release)
		synctest.Wait()
		if l.count("delivered") != eventQueue || !strings.Contains(l.logged(), "events are delivered again") {
			t.Errorf("%d delivered: %s", l.count("delivered"), l.logged())
		}
		l.close()
	})
}

// When the node ends, waiting events are delivered if that is quick, failures
// are not retried, and hanging deliveries are given up.
func TestEventsAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, Hook{}, nil, func(ctx context.Context, e event.Event, _ int) error {
			switch e.Stream {
			case "hangs":
				<-ctx.Done()
				return ctx.Err()
			case "fails":
				return errors.New("it fails")
			}
			time.Sleep(100 * time.Millisecond)
			return nil
		})
		for range 5 {
			l.hub.Add(opened("quick"))
			l.hub.Add(opened("hangs"))
		}
		l.hub.Add(opened("fails"))
		began := time.Now()
		l.close()
		if took := time.Since(began); took != eventFlush {
			t.Errorf("it took %v", took)
		}
		if l.count("delivered") != 5 || l.count("failed") != 1 || l.count("dropped") != 5 {
			t.Errorf("%d delivered, %d failed, %d dropped", l.count("delivered"), l.count("failed"), l.count("dropped"))
		}
		if !strings.Contains(l.logged(), "the node ends\" events=5") {
			t.Errorf("logged %s", l.logged())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		l := listen(t, Hook{}, nil, func(context.Context, event.Event, int) error { return nil })
		l.hub.Add(opened("demo"))
		began := time.Now()
		l.close()
		if took := time.Since(began); took != 0 || l.count("delivered") != 1 {
			t.Errorf("it took %v, delivered %d", took, l.count("delivered"))
		}
	})
}

var someEvent = event.Event{
	Seq: 7, Time: time.UnixMilli(1_700_000_000_123), Kind: event.SessionClosed, Stream: "demo/a", Session: "S1", Role: "viewer",
	Client: "203.0.113.5:4711", Reason: "deleted", Detail: "it's $(over) \x00", Elapsed: 1500, Packets: 20,
}

const receiverID = "12D3KooWGeYejmCRfjCkyaueQiSbs4H9JeggCmtvwJf68KjZLqRJ"

func someHook(t *testing.T, h Hook, keys *SigningKeys) *Events {
	t.Helper()
	var id peer.ID
	if err := id.UnmarshalText([]byte(receiverID)); err != nil {
		t.Fatal(err)
	}
	h.log = slog.New(slog.DiscardHandler)
	h.timeout = cmp.Or(h.timeout, 20*time.Second)
	e := NewEvents(h, nil, keys, Origin{id, "n1", "https://n1.example", "open"}, NewEventCounts(), eventlog.NewHub(h.log))
	t.Cleanup(e.client.CloseIdleConnections)
	return e
}

func TestEventCommand(t *testing.T) {
	t.Setenv("WEIR_EVENT_KEY", "/of/the/node")
	t.Setenv("MY_API_TOKEN", "hunter2hunter2")
	dir := t.TempDir()
	saw := filepath.Join(dir, "saw")
	for name, c := range map[string]struct {
		command string
		want    string // of the error; "": none
		output  string // logged
		final   bool   // it is not retried
	}{
		"it gets JSON and an environment": {command: `{ cat; echo; env | grep ^WEIR_EVENT_ | sort; } >` + saw},
		"it fails":                        {command: "echo disk full >&2; exit 3", want: "exit status 3", output: "disk full"},
		"it hangs":                        {command: "sleep 100 & sleep 100", want: "not ended within"},
		"it floods":                       {command: "cat /dev/zero", want: "printed more than", final: true},
		"it prints secrets":               {command: `set -x; : "$MY_API_TOKEN" Bearer abc.def token=s3cr3t whsec_MfKQ9r8G eyJhbGciOi.eyJzdWIi.c2ln; false`, want: "exit status 1", output: "…"},
		"it leaves a process behind":      {command: "sleep 3 & true"},
	} {
		t.Run(name, func(t *testing.T) {
			timeout := 20 * time.Second
			if name == "it hangs" {
				timeout = time.Second
			}
			e := someHook(t, Hook{command: c.command, timeout: timeout}, nil)
			err := e.deliver(t.Context(), someEvent, 1)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("deliver = %v, want %q", err, c.want)
			}
			if final := errors.As(err, new(*refusedEvent)); final != c.final {
				t.Errorf("not tried again: %v", final)
			}
			var said *hookOutputError
			if errors.As(err, &said) && !strings.Contains(said.tail, c.output) {
				t.Errorf("it is said to have printed %q, want %q", said.tail, c.output)
			}
			for _, secret := range []string{"hunter2", "abc.def", "s3cr3t", "MfKQ", "c2ln"} {
				if said != nil && strings.Contains(said.tail, secret) {
					t.Errorf("%q is in %q", secret, said.tail)
				}
			}
		})
	}
	b, err := os.ReadFile(saw)
	if err != nil {
		t.Fatal(err)
	}
	text, env, _ := strings.Cut(string(b), "\n")
	id := receiverID + "-1700000000123-7"
	var in eventInput
	if err := json.Unmarshal([]byte(text), &in); err != nil || in.ID != id || in.Kind != event.SessionClosed || in.Stream != "demo/a" || in.URL != "https://n1.example" || in.Packets != 20 {
		t.Errorf("it read %s, %v", text, err)
	}
	want := "WEIR_EVENT_CLIENT=203.0.113.5:4711\nWEIR_EVENT_DETAIL=it's $(over) \nWEIR_EVENT_ID=" + id + "\nWEIR_EVENT_KIND=session.closed\n" +
		"WEIR_EVENT_NETWORK=open\nWEIR_EVENT_NODE=" + receiverID + "\nWEIR_EVENT_NODE_NAME=n1\nWEIR_EVENT_NODE_URL=https://n1.example\n" +
		"WEIR_EVENT_REASON=deleted\nWEIR_EVENT_ROLE=viewer\nWEIR_EVENT_SESSION=S1\nWEIR_EVENT_STREAM=demo/a\nWEIR_EVENT_TIME=2023-11-14T22:13:20.123Z\nWEIR_EVENT_TRY=2\n"
	if env != want {
		t.Errorf("its environment:\n%swant\n%s", env, want)
	}
}

func TestEventURL(t *testing.T) {
	var mu sync.Mutex
	var got *http.Request
	var body []byte
	mux := http.NewServeMux()
	mux.HandleFunc("POST /ok", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = r
		body, _ = io.ReadAll(r.Body)
	})
	mux.HandleFunc("POST /flood", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	hang := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			if status != 0 {
				w.WriteHeader(status)
				_ = http.NewResponseController(w).Flush()
			}
			<-r.Context().Done()
		}
	}
	mux.HandleFunc("POST /hang", hang(0))
	mux.HandleFunc("POST /hang-after", hang(200))
	mux.HandleFunc("POST /headers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X", strings.Repeat("x", 4*maxHookHeader))
	})
	mux.HandleFunc("POST /moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusTemporaryRedirect) })
	mux.HandleFunc("POST /secret", func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "token=s3cr3t", http.StatusInternalServerError)
	})
	mux.HandleFunc("POST /busy", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	path := filepath.Join(t.TempDir(), "keys")
	plain, encoded := "an old key of many bytes", bytes.Repeat([]byte{0xfe, 1}, 16)
	if err := os.WriteFile(path, []byte("# now\nwhsec_"+base64.StdEncoding.EncodeToString(encoded)+"\n\n"+plain+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := NewSigningKeys(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for at, c := range map[string]struct {
		want  string
		final bool
	}{
		"/ok": {}, "/flood": {}, "/hang-after": {},
		"/gone":    {"answered 404", true},
		"/moved":   {"answered 307", true},
		"/secret":  {"answered 500", false},
		"/busy":    {"answered 429", false},
		"/hang":    {"not ended within", false},
		"/headers": {"connection", false},
	} {
		timeout := 20 * time.Second
		if at == "/hang" {
			timeout = time.Second
		}
		h := someHook(t, Hook{URL: "http://user:pa55@" + strings.TrimPrefix(server.URL, "http://") + at + "?token=s3cr3t", timeout: timeout}, keys)
		err := h.deliver(t.Context(), someEvent, 0)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: deliver = %v, want %q", at, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cr3t") || strings.Contains(err.Error(), "pa55")) {
			t.Errorf("%s: a secret is in %v", at, err)
		}
		if final := errors.As(err, new(*refusedEvent)); final != c.final {
			t.Errorf("%s: not tried again: %v", at, final)
		}
		var later *laterEvent
		if errors.As(err, &later) != (at == "/busy") || later != nil && later.after != 7*time.Second {
			t.Errorf("%s: try again %+v", at, later)
		}
		h.client.CloseIdleConnections()
	}
	mu.Lock()
	defer mu.Unlock()
	id, stamp := got.Header.Get("Webhook-Id"), got.Header.Get("Webhook-Timestamp")
	var want []string
	for _, key := range [][]byte{encoded, []byte(plain)} {
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write([]byte(id + "." + stamp + "." + string(body)))
		want = append(want, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if sig := got.Header.Get("Webhook-Signature"); sig != strings.Join(want, " ") || id != receiverID+"-1700000000123-7" || got.Header.Get("Content-Type") != "application/json" {
		t.Errorf("signed %q, want %q; %v", sig, want, got.Header)
	}
	if !bytes.Contains(body, []byte(`"kind":"session.closed"`)) {
		t.Errorf("it was sent %s", body)
	}
}

// The keys are read again when the file changes; while it is invalid, the
// previous keys stay, which is logged once.
func TestSigningKeysAreReadAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	at := time.Unix(1_700_000_000, 0)
	put := func(text string) {
		t.Helper()
		at = at.Add(time.Second)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	put("the first key of all")
	keys, err := NewSigningKeys(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	is := func(want string) {
		t.Helper()
		if got := keys.current(); len(got) != 1 || string(got[0]) != want {
			t.Errorf("the keys are %q, want %q", got, want)
		}
	}
	is("the first key of all")
	put("the second key of all")
	is("the second key of all")
	put("tooshort")
	is("the second key of all")
	is("the second key of all")
	if n := strings.Count(log.String(), "not read again"); n != 1 || strings.Contains(log.String(), "tooshort") {
		t.Errorf("logged %s", &log)
	}
	put("the third key of all")
	is("the third key of all")
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte("# a\nwhsec_" + base64.StdEncoding.EncodeToString(make([]byte, 32)) + "\n"))
	f.Add([]byte("an old key of many bytes\r\n\n"))
	f.Add([]byte("whsec_!"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := parseKeys(b)
		if (err == nil) != (len(keys) > 0) || len(keys) > maxKeys {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			if len(k) < minKey {
				t.Errorf("a key of %d bytes", len(k))
			}
		}
	})
}
