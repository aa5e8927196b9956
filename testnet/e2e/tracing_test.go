package e2e

import (
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"weir/capacity/event"
	"weir/capacity/tracing"
	"weir/sfu/client"
	"weir/sfu/problem"
	"weir/testnet/printed"
)

// A collector accepts spans by OTLP over HTTP, as an OpenTelemetry collector does.
type collector struct {
	url string

	mu    sync.Mutex
	spans []span
}

// A span is one that a node has exported.
type span struct {
	*tracepb.Span
	node string // service.instance.id
}

func newCollector(t *testing.T) *collector {
	c := &collector{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/traces", func(w http.ResponseWriter, r *http.Request) {
		body, err := gzip.NewReader(r.Body)
		if err != nil || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("spans as %s, %s: %v", r.Header.Get("Content-Type"), r.Header.Get("Content-Encoding"), err)
			return
		}
		b, err := io.ReadAll(body)
		var m collectorpb.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(b, &m)
		}
		if err != nil {
			t.Errorf("spans that are none: %v", err)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, from := range m.ResourceSpans {
			node := attr(from.Resource.Attributes, "service.instance.id")
			if attr(from.Resource.Attributes, "service.name") != "weir" || node == "" {
				t.Errorf("spans of %v", from.Resource)
			}
			for _, scope := range from.ScopeSpans {
				for _, s := range scope.Spans {
					c.spans = append(c.spans, span{s, node})
				}
			}
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	c.url = server.URL
	return c
}

// attr is one attribute, as text.
func attr(list []*commonpb.KeyValue, key string) string {
	for _, kv := range list {
		if kv.Key == key {
			if n, ok := kv.Value.Value.(*commonpb.AnyValue_IntValue); ok {
				return fmt.Sprint(n.IntValue)
			}
			return kv.Value.GetStringValue()
		}
	}
	return ""
}

func (s span) attr(key string) string { return attr(s.Attributes, key) }

// of are the spans of one trace received so far.
func (c *collector) of(traceID string) trace {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := trace{}
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == traceID {
			all = append(all, s)
		}
	}
	return all
}

type trace []span

// at finds a span of that name at a node with the given parent; nil: any.
func (tr trace) at(n node, name string, parent *span) *span {
	i := slices.IndexFunc(tr, func(s span) bool {
		return s.node == n.PeerID.String() && s.Name == name && (parent == nil || string(s.ParentSpanId) == string(parent.SpanId))
	})
	if i < 0 {
		return nil
	}
	return &tr[i]
}

// String draws the tree.
func (tr trace) String() string {
	var b strings.Builder
	var draw func(parent, indent string)
	draw = func(parent, indent string) {
		for _, s := range tr {
			if string(s.ParentSpanId) == parent {
				fmt.Fprintf(&b, "%s%s at …%s, %v %s\n", indent, s.Name, s.node[len(s.node)-6:], s.Kind, time.Duration(s.EndTimeUnixNano-s.StartTimeUnixNano))
				draw(string(s.SpanId), indent+"  ")
			}
		}
	}
	roots := map[string]bool{}
	for _, s := range tr {
		if !slices.ContainsFunc(tr, func(p span) bool { return string(p.SpanId) == string(s.ParentSpanId) }) {
			roots[string(s.ParentSpanId)] = true
		}
	}
	for parent := range roots {
		fmt.Fprintf(&b, "below %x:\n", parent)
		draw(parent, "  ")
	}
	return b.String()
}

// traceOf is the trace ID in an answer's header.
func traceOf(t *testing.T, h http.Header) string {
	t.Helper()
	id := tracing.InHeader(h)
	if id == "" {
		t.Fatalf("the answer names no trace: %v", h)
	}
	return id
}

// A viewer comes to a full node that redirects, or relays the request; the
// spans of all nodes with a part in its placement, until the first frame, are
// one trace, each below its cause. They contain no secret.
func TestTraceOfPlacement(t *testing.T) {
	for _, overflow := range []string{"redirect", "relay"} {
		t.Run(overflow, func(t *testing.T) {
			t.Parallel()
			spans := newCollector(t)
			w := up(t, 4, func(i int) []string {
				flags := []string{"--otlp-endpoint", spans.url}
				if i == 1 {
					flags = append(flags, "--session-limit", "2", "--overflow", overflow)
				}
				return flags
			})
			w.see(t)
			full := w.n(1)
			fill(t, full, "demo")
			events := full.follow(t)
			view(t, full.whep("demo"))
			var told []event.Event
			eventually(t, "it is told that the viewer is sent on", func() bool { told = events.of(event.Redirected, "demo"); return len(told) > 0 })
			var helper node
			for i := 2; i <= 4; i++ {
				if w.n(i).PeerID == told[0].Peer {
					helper = w.n(i)
				}
			}
			if len(told) != 1 || len(told[0].Trace) != 32 || helper.PeerID == "" {
				t.Fatalf("told of %+v", told)
			}
			id := told[0].Trace

			// missing names an absent span, or returns "".
			missing := func(tr trace) string {
				root := tr.at(full, "POST /whep/{stream}", nil)
				if root == nil {
					return "the request at the full node"
				}
				if len(root.ParentSpanId) != 0 {
					return "a root without a parent"
				}
				place := tr.at(full, "place", root)
				for _, s := range tr {
					if s.Name == "place" && s.node == root.node && s.attr("weir.peer.id") == helper.PeerID.String() {
						place = &s
					}
				}
				if place == nil || string(place.ParentSpanId) != string(root.SpanId) {
					return "its placement"
				}
				// The reservation on the helper: both ends.
				reserved := false
				for _, s := range tr {
					if s.Name == "reserve/reserve" && s.node == root.node && s.attr("weir.peer.id") == helper.PeerID.String() && string(s.ParentSpanId) == string(place.SpanId) {
						served := tr.at(helper, "reserve/reserve", &s)
						reserved = reserved || served != nil && served.Kind == tracepb.Span_SPAN_KIND_SERVER
					}
				}
				if !reserved {
					return "the reservation on the helper, at both ends"
				}
				came := root
				if overflow == "relay" {
					if came = tr.at(full, "hand over", root); came == nil {
						return "the handover"
					}
				}
				served := tr.at(helper, "POST /whep/{stream}", came)
				if served == nil {
					return "the request at the helper, below what sent it there"
				}
				pull := tr.at(helper, "pull", served)
				if pull == nil {
					return "the helper's pull"
				}
				subscribe := tr.at(helper, "subscribe", pull)
				if subscribe == nil || tr.at(full, "subscribe", subscribe) == nil {
					return "the subscription, at both ends"
				}
				if tr.at(helper, "open link", pull) == nil {
					return "the link"
				}
				first := tr.at(helper, "first frame", served)
				if first == nil || first.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
					return "the first frame"
				}
				if want := map[string]string{"redirect": "307", "relay": "201"}[overflow]; root.attr("http.response.status_code") != want || served.attr("http.response.status_code") != "201" || root.attr("http.route") != "/whep/{stream}" || root.attr("weir.stream") != "demo" {
					return fmt.Sprintf("the answers: %v and %v", root.Attributes, served.Attributes)
				}
				return ""
			}
			why := ""
			func() {
				defer func() {
					if t.Failed() {
						t.Logf("missing: %s; there are\n%s", why, spans.of(id))
					}
				}()
				eventually(t, "the whole trace has come", func() bool { why = missing(spans.of(id)); return why == "" })
			}()
			t.Logf("%s", spans.of(id))

			secrets := []string{"ticket=", "v=0", "a=ice-", "127.0.0.1:"}
			for _, s := range spans.of(id) {
				text := s.String()
				for _, secret := range secrets {
					if strings.Contains(text, secret) {
						t.Errorf("%q in %s", secret, text)
					}
				}
			}
			// The helper's log and events have the same ID.
			eventually(t, "the helper's events name the trace", func() bool {
				return slices.ContainsFunc(ask[[]event.Event](t, helper, "/events?follow=false"), func(e event.Event) bool {
					return e.Kind == event.SessionOpened && e.Trace == id
				})
			})
			if log := read(t, helper.Log); !strings.Contains(log, id) {
				t.Errorf("the log of %s does not name %s", helper.Name, id)
			}
			eventually(t, "exports are counted", func() bool { return full.metric(t, `weir_trace_spans_total{outcome="exported"}`) > 0 })
		})
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A refused client gets a trace ID, which the log and the events have as well;
// without an export too, and within the client's own trace.
func TestTraceIDOfRefusal(t *testing.T) {
	t.Parallel()
	w := up(t, 1, func(int) []string { return []string{"--session-limit", "1"} })
	n := w.n(1)
	publish(t, n.whip("demo"))
	const own = "4bf92f3577b34da6a3ce929d0e0e4736"
	var ids []string
	for _, parent := range []string{"", "00-" + own + "-00f067aa0ba902b7-01", "00-" + own + "-nonsense"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, n.whep("demo"), strings.NewReader(viewerOffer(t)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/sdp")
		if parent != "" {
			req.Header.Set("Traceparent", parent)
		}
		resp, err := web.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		p := problem.Read(resp)
		resp.Body.Close()
		if p.Code != problem.NoCapacity || p.TraceID != traceOf(t, resp.Header) || resp.Header.Get("Access-Control-Expose-Headers") == "" {
			t.Errorf("refused with %+v, %v", p, resp.Header)
		}
		ids = append(ids, p.TraceID)
	}
	if ids[1] != own || ids[0] == own || ids[2] == own || ids[0] == ids[2] {
		t.Errorf("the IDs are %v", ids)
	}
	// The log has the first of several refusals for one reason; the events have
	// all.
	if log := read(t, n.Log); !strings.Contains(log, "trace_id="+ids[0]) {
		t.Errorf("the log does not name %s", ids[0])
	}
	for _, id := range ids {
		var found []event.Event
		for line := range strings.Lines(cli(t, "events", "--admin", n.Admin, "--trace", id, "--json").out) {
			var e event.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			found = append(found, e)
		}
		if !slices.ContainsFunc(found, func(e event.Event) bool { return e.Kind == event.Refused && e.Trace == id }) {
			t.Errorf("weir events --trace %s: %+v", id, found)
		}
	}
}

// A collector that hangs, refuses, or answers with far too much shows only in
// the log and a metric, once; and a node with spans left ends in time.
func TestBadCollectors(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	floods := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-protobuf")
		chunk := make([]byte, 64<<10)
		for range 80 { // 5 MB
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}))
	refuses := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	t.Cleanup(func() {
		close(release)
		for _, s := range []*httptest.Server{hangs, floods, refuses} {
			s.Close()
		}
	})
	endpoints := []string{hangs.URL, floods.URL, refuses.URL, gone.URL}
	w := up(t, len(endpoints), func(i int) []string { return []string{"--otlp-endpoint", endpoints[i-1]} })
	w.see(t)
	var viewers []*client.Viewer
	for i := range endpoints {
		n, name := w.n(i+1), fmt.Sprintf("s%d", i)
		publish(t, n.whip(name))
		viewers = append(viewers, view(t, n.whep(name)))
	}
	for i, words := range []string{"did not answer in time", "none of OTLP", "403 Forbidden: give its key by OTEL_EXPORTER_OTLP_HEADERS", "nothing listens there"} {
		n := w.n(i + 1)
		eventually(t, n.Name+" says once that "+words, func() bool {
			log := read(t, n.Log)
			return strings.Count(log, "spans are not exported") == 1 && strings.Contains(log, words)
		})
	}
	eventually(t, "what was refused is counted", func() bool { return w.n(3).metric(t, `weir_trace_spans_total{outcome="failed"}`) > 0 })
	flows(t, viewers...)
	for _, v := range viewers {
		_ = v.Close()
	}
	for i := range endpoints {
		if err := w.Signal(w.n(i+1).Name, syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	}
	for i := range endpoints {
		eventually(t, w.n(i+1).Name+" has ended", func() bool { return !w.Alive(w.n(i + 1).Name) })
	}
}

// The operator's guide works as printed: a refused viewer gets a trace ID,
// which finds the events; and spans go to the collector at the guide's URL.
func TestTracingGuide(t *testing.T) {
	t.Parallel()
	lines := printed.Lines(operating(t, "Tracing"))
	if len(lines) != 4 {
		t.Fatalf("the commands are %q", lines)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	shell, err := printed.NewShell(weir, t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer shell.Close()
	running, err := shell.Start(lines[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := running.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := running.Await(ctx, "node is ready"); err != nil {
		t.Fatal(err)
	}
	said, err := shell.Run(ctx, lines[1])
	found := regexp.MustCompile(`\(trace ([0-9a-f]{32})\)`).FindStringSubmatch(said)
	if err == nil || found == nil {
		t.Fatalf("%s: %v: %s", lines[1], err, said)
	}
	out, err := shell.Run(ctx, strings.ReplaceAll(lines[2], "ID", found[1]))
	if err != nil {
		t.Fatalf("%s: %v: %s", lines[2], err, out)
	}
	says(t, out, "pull failed: demo")

	spans := newCollector(t)
	const shown = "http://127.0.0.1:4318"
	flags := strings.Fields(replaced(t, strings.TrimPrefix(lines[3], "bin/weir node --dev "), shown, spans.url))
	w := up(t, 1, func(int) []string { return flags })
	resp, _ := w.n(1).post(t, w.n(1).whep("demo"), viewerOffer(t))
	id := traceOf(t, resp.Header)
	eventually(t, "the span of the request has come", func() bool {
		root := spans.of(id).at(w.n(1), "POST /whep/{stream}", nil)
		return root != nil && root.attr("error.type") == string(problem.NotLive)
	})
}
