package extension

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weir/sfu/forward"
	"weir/sfu/problem"
)

// A fakeMedia records what a viewer does.
type fakeMedia struct {
	layers map[int][]forward.Layer

	mu     sync.Mutex
	chosen map[int]forward.Choice
	paused map[forward.Kind]bool
	kinds  []forward.Kind
}

func (m *fakeMedia) Layers() map[int][]forward.Layer { return m.layers }

func (m *fakeMedia) Choose(section int, c forward.Choice) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.chosen[section] = c
}

func (m *fakeMedia) Pause(kind forward.Kind, paused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.paused[kind] = paused
}

func (m *fakeMedia) Paused(kind forward.Kind) (paused, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.kinds {
		ok = ok || k == kind
	}
	return m.paused[kind], ok
}

func newFake() *fakeMedia {
	return &fakeMedia{
		layers: map[int][]forward.Layer{1: {{RID: "l", Width: 320, Height: 180, Active: true}, {RID: "m", Width: 640, Height: 360, Active: true}, {RID: "h", Width: 1280, Height: 720, Active: true}}},
		chosen: map[int]forward.Choice{}, paused: map[forward.Kind]bool{}, kinds: []forward.Kind{forward.Audio, forward.Video},
	}
}

const sessionURL = "https://node.example/session/X"

// ask sends one request to s.
func ask(s *Session, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, sessionURL+"/"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	handler(s).ServeHTTP(w, r)
	return w
}

// handler serves s alone.
func handler(s *Session) http.Handler {
	mux := http.NewServeMux()
	preflight := func(string) http.HandlerFunc { return func(http.ResponseWriter, *http.Request) {} }
	Routes(mux, func(http.ResponseWriter, *http.Request) (*Session, string) { return s, sessionURL }, preflight)
	return problem.Mux(mux)
}

func newSession(m Media, over chan struct{}) (*Session, *Counters) {
	c := &Counters{}
	st := forward.NewStream("demo", []*forward.Track{{ID: "audio0"}}, time.Now())
	return New(m, st, over, c, slog.New(slog.DiscardHandler)), c
}

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		method, path, body string
		status             int
		has                string
	}{
		{"POST", "events", `["active","reconnect"]`, 201, ""},
		{"POST", "events", "", 201, ""},
		{"POST", "events", `["reconnect"]`, 400, "active, inactive, layers, viewercount"},
		{"POST", "events", `{}`, 400, "bad-body"},
		{"POST", "events", strings.Repeat(" ", maxBody+1), 413, "too-large"},
		{"GET", "events", "", 405, "POST"},
		{"GET", "events/none", "", 404, "one, the newest"},
		{"DELETE", "events/none", "", 404, ""},
		{"POST", "layer", `{"mediaId":"1","rid":"m"}`, 200, ""},
		{"POST", "layer", `{"encodingId":"m"}`, 200, ""},
		{"POST", "layer", `{"mediaId":1}`, 200, ""},
		{"POST", "layer", `{"mediaId":"0","rid":"m"}`, 400, "[1]"},
		{"POST", "layer", `{"mediaId":{}}`, 400, "[1]"},
		{"POST", "layer", `{"rid":"x"}`, 400, "[l m h]"},
		{"POST", "layer", `{"spatialLayerId":-1}`, 400, "bad-body"},
		{"GET", "media", "", 200, `{"audio":true,"video":true}`},
		{"PATCH", "media", `{"video":false}`, 200, `{"audio":true,"video":false}`},
		{"PATCH", "media", "", 400, "video"},
		{"PUT", "media", `{"video":false}`, 405, "PATCH"},
		{"GET", "other", "", 404, "not-found"},
	} {
		s, _ := newSession(newFake(), nil)
		w := ask(s, c.method, c.path, c.body)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.has) {
			t.Errorf("%s %s %.40s: %d, want %d with %q: %s", c.method, c.path, c.body, w.Code, c.status, c.has, w.Body)
		}
	}
}

func TestLayerIsChosen(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{"mediaId":"1","rid":"m"}`, `{"RID":"m","Spatial":null,"Temporal":null}`},
		{`{"spatialLayerId":2,"maxSpatialLayerId":1,"maxTemporalLayerId":0}`, `{"RID":"","Spatial":1,"Temporal":0}`},
		{`{"maxWidth":700}`, `{"RID":"m","Spatial":0,"Temporal":null}`},
		{`{"maxHeight":100}`, `{"RID":"l","Spatial":0,"Temporal":null}`},
		{`{"mediaId":"1"}`, `{"RID":"","Spatial":null,"Temporal":null}`},
	} {
		m := newFake()
		s, _ := newSession(m, nil)
		if w := ask(s, "POST", "layer", c.body); w.Code != 200 {
			t.Errorf("%s: %d %s", c.body, w.Code, w.Body)
		}
		if got, _ := json.Marshal(m.chosen[1]); string(got) != c.want {
			t.Errorf("%s chooses %s, want %s", c.body, got, c.want)
		}
	}
}

// Each change may cost the publisher a keyframe.
func TestChangesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSession(newFake(), nil)
		done := 0
		for range 100 {
			for _, c := range [][2]string{{"PATCH", "media"}, {"POST", "layer"}} {
				w := ask(s, c[0], c[1], `{"video":true}`)
				if w.Code == 200 {
					done++
				} else if w.Code != 429 || w.Header().Get("Retry-After") == "" {
					t.Fatalf("%d %s", w.Code, w.Body)
				}
			}
		}
		if done != changesBurst {
			t.Errorf("%d changes at once, want %d", done, changesBurst)
		}
		time.Sleep(time.Second)
		if w := ask(s, "PATCH", "media", `{"video":true}`); w.Code != 200 {
			t.Errorf("a second later: %d", w.Code)
		}
	})
}

// A session has one event stream with one reader, the newest of each, and none
// once it is over.
func TestNewestReaderReads(t *testing.T) {
	over := make(chan struct{})
	s, counters := newSession(newFake(), over)
	web := httptest.NewServer(handler(s))
	defer web.Close()
	made := func() string {
		return strings.TrimPrefix(ask(s, "POST", "events", "").Header().Get("Location"), sessionURL)
	}
	read := func(path string) *http.Response {
		resp, err := http.Get(web.URL + "/session/X" + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("%s: %s", path, resp.Status)
		}
		return resp
	}
	ends := func(r *http.Response) {
		t.Helper()
		if _, err := io.ReadAll(r.Body); err != nil {
			t.Errorf("a stream ends with %v", err)
		}
		_ = r.Body.Close()
	}
	first := made()
	one := read(first)
	two := read(first)
	ends(one)
	second := made()
	ends(two)
	if w := ask(s, "GET", strings.TrimPrefix(first, "/"), ""); w.Code != 404 {
		t.Errorf("the stream before answers %d", w.Code)
	}
	three := read(second)
	if open, _ := counters.EventStreams(); open != 1 {
		t.Errorf("%d streams are open", open)
	}
	if w := ask(s, "DELETE", strings.TrimPrefix(second, "/"), ""); w.Code != 200 {
		t.Errorf("DELETE: %d", w.Code)
	}
	ends(three)
	four := read(made())
	close(over)
	ends(four)
}

// A reader that does not read is dropped, and counted.
func TestSlowReaderIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, counters := newSession(newFake(), nil)
		near, far := net.Pipe() // has no buffer
		defer far.Close()
		id := strings.TrimPrefix(ask(s, "POST", "events", "").Header().Get("Location"), sessionURL+"/")
		r := httptest.NewRequest("GET", sessionURL+"/"+id, nil)
		began := time.Now()
		handler(s).ServeHTTP(&pipeWriter{Conn: near, header: http.Header{}}, r)
		if open, slow := counters.EventStreams(); open != 0 || slow != 1 {
			t.Errorf("%d open, %d were slow", open, slow)
		}
		if took := time.Since(began); took != eventPatience {
			t.Errorf("after %v", took)
		}
	})
}

// Over HTTP/2 a stream stays while nothing is written for longer than a reader
// may take for an event.
func TestQuietStreamStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		over := make(chan struct{})
		s, _ := newSession(newFake(), over)
		near, far := net.Pipe()
		var http2 http.Protocols
		http2.SetUnencryptedHTTP2(true)
		web := &http.Server{Handler: handler(s), Protocols: &http2}
		conns := &oneConn{conn: near, closed: make(chan struct{})}
		go func() { _ = web.Serve(conns) }()
		defer web.Close()
		client := &http.Transport{Protocols: &http2, DialContext: func(context.Context, string, string) (net.Conn, error) { return far, nil }}
		defer client.CloseIdleConnections()
		id := strings.TrimPrefix(ask(s, "POST", "events", "").Header().Get("Location"), sessionURL)
		resp, err := (&http.Client{Transport: client}).Get("http://node.example/session/X" + id)
		if err != nil || resp.ProtoMajor != 2 {
			t.Fatalf("%v, %v", resp, err)
		}
		time.AfterFunc(10*keepalive, func() { close(over) })
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if beats := strings.Count(string(text), "\n:"); err != nil || beats < 8 {
			t.Errorf("it ends with %v after %q", err, text)
		}
	})
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}
func (l *oneConn) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *oneConn) Addr() net.Addr { return &net.UnixAddr{} }

// A pipeWriter answers over a connection.
type pipeWriter struct {
	net.Conn
	header http.Header
}

func (w *pipeWriter) Header() http.Header { return w.header }
func (w *pipeWriter) WriteHeader(int)     {}
func (w *pipeWriter) Flush()              {}

// No body makes a request fail in another way than by name.
func FuzzBodies(f *testing.F) {
	for _, body := range []string{`["active"]`, `{"mediaId":"1","rid":"m","maxWidth":700}`, `{"mediaId":1e99}`, `{"video":false}`, `[`, `null`, `{"spatialLayerId":256}`} {
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body string) {
		s, _ := newSession(newFake(), nil)
		for _, c := range [][2]string{{"POST", "events"}, {"POST", "layer"}, {"PATCH", "media"}} {
			switch w := ask(s, c[0], c[1], body); w.Code {
			case 200, 201, 400, 413:
			default:
				t.Errorf("%s %s %q: %d", c[0], c[1], body, w.Code)
			}
		}
	})
}
