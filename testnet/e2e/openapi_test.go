package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/legacy"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/identity"
	"weir/sfu/sdp"
)

// A contract compares the answers of nodes with cmd/weir/api/openapi.yaml.
type contract struct {
	doc      *openapi3.T
	router   routers.Router
	answered map[string][]int // the statuses seen of each operation
}

func newContract(t *testing.T) *contract {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromFile("../../cmd/weir/api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	doc.Servers = nil // the test's nodes have other addresses
	for _, item := range doc.Paths.Map() {
		item.Servers = nil
	}
	router, err := legacy.NewRouter(doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{"application/sdp", fragmentType, "text/event-stream"} {
		openapi3filter.RegisterBodyDecoder(plain, openapi3filter.PlainBodyDecoder)
	}
	openapi3filter.RegisterBodyDecoder("application/yaml", openapi3filter.PlainBodyDecoder)
	return &contract{doc: doc, router: router, answered: map[string][]int{}}
}

// ask sends a request, checks the answer, and the request too if it succeeded,
// and returns the answer's body.
func (c *contract) ask(t *testing.T, want int, method, url, contentType, body string, header map[string]string) (*http.Response, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	route, params, err := c.router.FindRoute(req)
	if err != nil {
		t.Fatalf("%s %s is not in the file: %v", method, url, err)
	}
	resp, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text []byte
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		text = c.firstEvent(t, resp.Body)
	} else if text, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	c.answered[route.Method+" "+route.Path] = append(c.answered[route.Method+" "+route.Path], resp.StatusCode)
	if resp.StatusCode != want {
		t.Errorf("%s %s: %s, want %d: %s", method, url, resp.Status, want, text)
	}
	req.Body = io.NopCloser(strings.NewReader(body))
	asked := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}} // these nodes require no token
	if resp.StatusCode < 400 {
		if err := openapi3filter.ValidateRequest(ctx, asked); err != nil {
			t.Errorf("%s %s was answered with %s, and is not as the file has it: %v", method, url, resp.Status, err)
		}
	}
	if err := openapi3filter.ValidateResponse(ctx, &openapi3filter.ResponseValidationInput{
		RequestValidationInput: asked, Status: resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(text)),
		Options: &openapi3filter.Options{IncludeResponseStatus: true, MultiError: true},
	}); err != nil {
		t.Errorf("%s %s: %v", method, url, err)
	}
	if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s %s: %s is not a problem but %s", method, url, resp.Status, resp.Header.Get("Content-Type"))
	}
	return resp, text
}

// firstEvent reads the data of the first server-sent event.
func (c *contract) firstEvent(t *testing.T, body io.Reader) []byte {
	t.Helper()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: ")); ok {
			return bytes.Clone(data)
		}
	}
	t.Fatalf("the stream ended without an event: %v", lines.Err())
	return nil
}

// is fails the test unless text is JSON of the named schema.
func (c *contract) is(t *testing.T, schema string, text []byte) {
	t.Helper()
	var v any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if err := c.doc.Components.Schemas[schema].Value.VisitJSON(v, openapi3.EnableJSONSchema2020(), openapi3.MultiErrors()); err != nil {
		t.Errorf("%s is no %s: %v", text, schema, err)
	}
}

// extensions asks for the extensions of a viewer's session.
func (c *contract) extensions(t *testing.T, session string) {
	t.Helper()
	const typeJSON = "application/json"
	for _, path := range []string{"/events", "/layer", "/media", "/events/x"} {
		c.ask(t, 204, http.MethodOptions, session+path, "", "", nil)
	}
	resp, _ := c.ask(t, 201, http.MethodPost, session+"/events", typeJSON, `["active","viewercount"]`, nil)
	stream := resp.Header.Get("Location")
	if _, event := c.ask(t, 200, http.MethodGet, stream, "", "", nil); !strings.HasPrefix(string(event), `{"viewercount":`) {
		t.Errorf("the first event is %s", event)
	}
	c.ask(t, 200, http.MethodDelete, stream, "", "", nil)
	c.ask(t, 404, http.MethodGet, stream, "", "", nil)
	c.ask(t, 400, http.MethodPost, session+"/events", typeJSON, `["nothing"]`, nil)
	c.ask(t, 200, http.MethodGet, session+"/media", "", "", nil)
	c.ask(t, 200, http.MethodPatch, session+"/media", typeJSON, `{"video":false}`, nil)
	c.ask(t, 415, http.MethodPatch, session+"/media", "text/plain", `{"video":false}`, nil)
	c.ask(t, 200, http.MethodPost, session+"/layer", typeJSON, `{}`, nil)
	c.ask(t, 400, http.MethodPost, session+"/layer", typeJSON, `{"rid":"none"}`, nil)
}

// Every operation in the file exists, gives the described answer to a valid
// request, and a described problem to an invalid one.
func TestAnswersAreAsOpenAPISays(t *testing.T) {
	c := newContract(t)
	dir := t.TempDir()
	keys := filepath.Join(dir, "operator")
	var operator struct{ Operator string }
	weirJSON(t, &operator, "policy", "key", "--json", keys)
	w := up(t, 2, func(i int) []string {
		return []string{"--operator", operator.Operator, "--session-limit", fmt.Sprint(7 - 3*i)} // 4 and 1
	})
	a, b := w.n(1), w.n(2)
	api := func(path string) string { return a.Admin + "/api/v1" + path }
	get := func(want int, path string) []byte {
		t.Helper()
		_, text := c.ask(t, want, http.MethodGet, api(path), "", "", nil)
		return text
	}
	post := func(want int, path, contentType, body string) []byte {
		t.Helper()
		_, text := c.ask(t, want, http.MethodPost, api(path), contentType, body, nil)
		return text
	}

	// A node without streams, whose lists are empty.
	for _, path := range []string{"/status", "/links", "/sessions", "/streams", "/decisions", "/holdings", "/events?follow=false", "/policy/history", "/select"} {
		get(200, path)
	}
	w.see(t)

	// Media, and the requests of the file by hand.
	publish(t, a.whip("demo"))
	b.finds(t, "demo")
	hand := viewByHand(t, a.whep("demo"))
	hand.flows()
	offer := viewerOffer(t)
	resp, _ := c.ask(t, 201, http.MethodPost, a.whep("demo"), "application/sdp", offer, nil)
	session, etag := resp.Header.Get("Location"), resp.Header.Get("ETag")
	ufrag := strings.Join(lines(offer, "a=ice-ufrag:")[:1], "")
	fragment := ufrag + "a=mid:0\r\na=candidate:7 1 udp 2130706431 127.0.0.1 9 typ host\r\n"
	c.ask(t, 204, http.MethodPatch, session, fragmentType, fragment, map[string]string{"If-Match": etag})
	restarted := strings.Join(lines(viewerOffer(t), "a=ice-ufrag:", "a=ice-pwd:"), "")
	c.ask(t, 200, http.MethodPatch, session, fragmentType, restarted+"a=mid:0\r\n", map[string]string{"If-Match": "*"})
	c.ask(t, 412, http.MethodPatch, session, fragmentType, fragment, map[string]string{"If-Match": etag})
	c.ask(t, 415, http.MethodPatch, session, "text/plain", fragment, nil)
	c.extensions(t, session)
	c.ask(t, 200, http.MethodDelete, session, "", "", nil)
	c.ask(t, 404, http.MethodDelete, session, "", "", nil)
	c.ask(t, 404, http.MethodPatch, session, fragmentType, fragment, nil)
	sends := strings.ReplaceAll(offer, "a=recvonly", "a=sendonly")
	resp, _ = c.ask(t, 201, http.MethodPost, a.whip("other"), "application/sdp", sends, nil)
	c.ask(t, 200, http.MethodDelete, resp.Header.Get("Location"), "", "", nil)
	c.ask(t, 409, http.MethodPost, a.whip("demo"), "application/sdp", offer, nil)
	c.ask(t, 409, http.MethodPost, a.whep("nothing"), "application/sdp", offer, nil)
	c.ask(t, 409, http.MethodPost, a.whep("nothing")+"?wait=10ms", "application/sdp", offer, nil)
	c.ask(t, 400, http.MethodPost, a.whep("demo")+"?wait=tomorrow", "application/sdp", offer, nil)
	c.ask(t, 400, http.MethodPost, a.whip("demo"), "application/sdp", "hello", nil)
	c.ask(t, 403, http.MethodPost, a.whep("demo")+"?ticket=none", "application/sdp", offer, nil)
	c.ask(t, 413, http.MethodPost, a.whip("demo"), "application/sdp", strings.Repeat("x", sdp.MaxBytes+1), nil)
	c.ask(t, 415, http.MethodPost, a.whip("demo"), "text/plain", offer, nil)
	for _, url := range []string{a.whip("demo"), a.whep("demo"), session} {
		c.ask(t, 204, http.MethodOptions, url, "", "", nil)
	}

	// a has no room left: it redirects one viewer, and then no node has any.
	flows(t, view(t, a.whep("demo")), view(t, a.whep("demo")))
	v := view(t, a.whep("demo"))
	if !b.serves(v.NodeURL()) {
		t.Fatalf("the viewer is at %s", v.NodeURL())
	}
	flows(t, v)
	knows := func(what string, used int64) {
		t.Helper()
		eventually(t, what, func() bool {
			for _, e := range ask[struct {
				Records []struct{ Record capacity.Record }
			}](t, a, "/records").Records {
				if e.Record.Node == b.PeerID {
					return e.Record.Sessions.Used == used
				}
			}
			return false
		})
	}
	knows("b is known to be full", 1)
	c.ask(t, 503, http.MethodPost, a.whip("third"), "application/sdp", sends, nil)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	knows("b is known to have room again", 0)
	if resp, _ := c.ask(t, 307, http.MethodPost, a.whep("demo"), "application/sdp", offer, nil); !b.serves(resp.Header.Get("Location")) {
		t.Errorf("Location is %q", resp.Header.Get("Location"))
	}

	// The admin API, of a node with sessions, a link and decisions.
	for _, path := range []string{
		"/status", "/links", "/sessions", "/holdings", "/peers", "/names", "/records", "/records?stream=demo", "/records/" + b.PeerID.String(), "/streams", "/doctor", "/invite",
		"/select", "/select?purpose=publish&uplink=5mbps&packets=100&region=r1", "/select?purpose=cascade&stream=demo", "/decisions", "/policy", "/events?follow=false", "/events?follow=false&since=1h", "/openapi.yaml",
	} {
		get(200, path)
	}
	for _, path := range []string{"/status", "/links", "/sessions", "/decisions", "/events?follow=false", "/peers", "/names"} {
		c.ask(t, 200, http.MethodGet, b.Admin+"/api/v1"+path, "", "", nil)
	}
	c.is(t, "Event", get(200, "/events"))
	c.is(t, "RecordChange", get(200, "/records/watch"))
	c.is(t, "RecordChange", get(200, "/records/watch?stream=demo"))
	c.is(t, "Ping", get(200, "/ping?count=1&peer="+b.PeerID.String()))
	for _, path := range []string{
		"/records/nobody", "/select?purpose=dance", "/select?uplink=fast", "/select?packets=-1", "/select?purpose=cascade", "/select?stream=a//b",
		"/events?since=yesterday", "/events?follow=perhaps", "/ping?peer=nobody", "/ping?peer=" + a.PeerID.String(), "/ping?count=0&peer=" + b.PeerID.String(),
	} {
		get(400, path)
	}
	c.ask(t, 403, http.MethodGet, api("/status"), "", "", map[string]string{"Origin": "https://example.org"})

	// Policies.
	policy := policy.Default()
	policy.Name = "described"
	text, err := policy.Text()
	if err != nil {
		t.Fatal(err)
	}
	post(200, "/policy/try?file=described.yaml", "application/yaml", string(text))
	post(200, "/policy/try?stream=demo", "application/yaml", string(text))
	post(400, "/policy/try", "application/yaml", "filter: 1")
	key, err := identity.Load(keys)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := signed.SealPolicy("described", text, 7, time.Now(), key)
	if err != nil {
		t.Fatal(err)
	}
	post(200, "/policy", "application/octet-stream", string(sealed))
	older, err := signed.SealPolicy("described", text, 3, time.Now(), key)
	if err != nil {
		t.Fatal(err)
	}
	post(409, "/policy", "application/octet-stream", string(older))
	post(400, "/policy", "application/octet-stream", "forged")
	post(413, "/policy", "application/octet-stream", strings.Repeat("x", signed.MaxPolicySize+1))
	get(200, "/policy")
	get(200, "/policy/history")

	// Operations that change something, and the health checks meanwhile.
	get(200, "/config")
	post(200, "/reload", "", "")
	for _, path := range []string{"/healthz", "/readyz", "/openapi.yaml", "/nodes?stream=demo"} {
		c.ask(t, 200, http.MethodGet, a.HTTP+path, "", "", nil)
	}
	c.ask(t, 400, http.MethodGet, a.HTTP+"/nodes?stream=a//b", "", "", nil)
	c.ask(t, 200, http.MethodGet, a.Admin+"/metrics", "", "", nil)
	var all []struct{ ID, Kind string }
	if err := json.Unmarshal(get(200, "/sessions"), &all); err != nil {
		t.Fatal(err)
	}
	viewer := all[slices.IndexFunc(all, func(s struct{ ID, Kind string }) bool { return s.Kind == "whep" })]
	post(200, "/sessions/"+viewer.ID+"/end", "", "")
	post(404, "/sessions/nothing/end", "", "")
	post(200, "/streams/end?stream=demo", "", "")
	post(404, "/streams/end?stream=demo", "", "")
	post(400, "/streams/end?stream=", "", "")
	post(400, "/drain", "application/json", `{"deadline_ms":-1,"exit":false}`)
	post(400, "/drain", "application/json", `{"until":"noon"}`)
	post(200, "/drain", "application/json", `{"deadline_ms":0,"exit":false}`)
	c.ask(t, 503, http.MethodGet, a.HTTP+"/readyz", "", "", nil)
	get(200, "/status")
	post(200, "/undrain", "", "")
	get(200, "/events?follow=false")

	// Every operation in the file was requested.
	for path, item := range c.doc.Paths.Map() {
		for method := range item.Operations() {
			statuses := c.answered[method+" "+path]
			if !slices.ContainsFunc(statuses, func(s int) bool { return s < 300 }) {
				t.Errorf("%s %s was answered with %v: no good answer has been checked", method, path, statuses)
			}
		}
	}
	t.Logf("checked %d answers of %d operations", func() (n int) {
		for _, s := range c.answered {
			n += len(s)
		}
		return n
	}(), len(slices.Collect(maps.Keys(c.answered))))

	served, err := os.ReadFile("../../cmd/weir/api/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if text := get(200, "/openapi.yaml"); !bytes.Equal(text, served) {
		t.Error("the node serves another file")
	}
}
