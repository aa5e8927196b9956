package sfu

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/sfu/problem"
	"weir/sfu/sdp/sdptest"
)

// spansOf returns the ended spans by name.
func spansOf(r *tracetest.SpanRecorder) map[string][]sdktrace.ReadOnlySpan {
	all := map[string][]sdktrace.ReadOnlySpan{}
	for _, s := range r.Ended() {
		all[s.Name()] = append(all[s.Name()], s)
	}
	return all
}

// Of two viewers at a node that has to pull the stream, the second is not part
// of the pull's trace, and has its own; both have a first frame. One that never
// connects has none, and its span has the reason.
func TestTraceOfViewers(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
	m := newMesh(t)
	record := func(c *Config) { c.Tracer = tracer }
	a, b := m.add(ledger.Limits{}, record), m.add(ledger.Limits{}, record)
	a.publish("demo")
	b.watch("demo")
	b.watch("demo")
	eventually(t, "both have a first frame", func() bool {
		spans := spansOf(recorder)
		return len(spans["first frame"]) == 2 && len(spans["POST /whep/{stream}"]) == 2
	})
	spans := spansOf(recorder)
	if len(spans["pull"]) != 1 || len(spans["POST /whep/{stream}"]) != 2 || len(spans["subscribe"]) != 2 {
		t.Fatalf("%d pulls, %d viewers, %d ends of subscriptions", len(spans["pull"]), len(spans["POST /whep/{stream}"]), len(spans["subscribe"]))
	}
	pull, first, second := spans["pull"][0], spans["POST /whep/{stream}"][0], spans["POST /whep/{stream}"][1]
	if pull.Parent().SpanID() != first.SpanContext().SpanID() || first.SpanContext().TraceID() == second.SpanContext().TraceID() {
		t.Errorf("the pull is below %v, the viewers are %v and %v", pull.Parent().SpanID(), first.SpanContext(), second.SpanContext())
	}
	for _, s := range spans["first frame"] {
		var words []string
		for _, e := range s.Events() {
			words = append(words, e.Name)
		}
		if said := strings.Join(words, " "); !strings.Contains(said, "connected") || !strings.Contains(said, "first_video") || s.Status().Code == codes.Error {
			t.Errorf("a first frame with %q, %v", said, s.Status())
		}
	}

	resp, err := http.Post(b.web.URL+"/whep/demo", "application/sdp", strings.NewReader(sdptest.Offer(sdptest.Video("0", "recvonly"))))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	id := tracing.InHeader(resp.Header)
	if resp.StatusCode != http.StatusCreated || id == "" {
		t.Fatalf("an offer that is taken is answered with %s, trace %q", resp.Status, resp.Header.Get(tracing.Header))
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, resp.Header.Get("Location"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if deleted, err := http.DefaultClient.Do(req); err != nil || deleted.StatusCode != http.StatusOK {
		t.Fatalf("deleted: %v", err)
	} else {
		deleted.Body.Close()
	}
	eventually(t, "the span of a frame that did not come has ended", func() bool { return len(spansOf(recorder)["first frame"]) == 3 })
	if last := spansOf(recorder)["first frame"][2]; last.Status().Code != codes.Error || last.Status().Description != "deleted" || last.SpanContext().TraceID().String() != id {
		t.Errorf("the frame that never came: %v, trace %s, and the answer named %s", last.Status(), last.SpanContext().TraceID(), id)
	}
}

// The span of a viewer that waited and was refused has the reason; a stream
// that is not live is no error of the server.
func TestTraceOfWaiting(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	n := newMesh(t).add(ledger.Limits{}, func(c *Config) {
		c.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
	})
	resp, err := http.Post(n.web.URL+"/whep/demo?wait=50ms", "application/sdp", strings.NewReader(sdptest.Offer(sdptest.Video("0", "recvonly"))))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	eventually(t, "the request's span has ended", func() bool { return len(spansOf(recorder)["POST /whep/{stream}"]) == 1 })
	span := spansOf(recorder)["POST /whep/{stream}"][0]
	attrs := map[string]string{}
	for _, a := range span.Attributes() {
		attrs[string(a.Key)] = a.Value.String()
	}
	if attrs["error.type"] != string(problem.NotLive) || attrs["http.response.status_code"] != "409" || attrs["weir.stream"] != "demo" || span.Status().Code != codes.Unset {
		t.Errorf("%v, %v", attrs, span.Status())
	}
	if e := span.Events(); len(e) == 0 || e[0].Name != "waiting" {
		t.Errorf("events %v", e)
	}
	if pulls := spansOf(recorder)["pull"]; len(pulls) == 0 || pulls[0].Status().Code != codes.Error {
		t.Errorf("the pulls in vain: %v", pulls)
	}
}

// A ticket's trace takes precedence over the client's own: the request follows
// from the node that redirected it here.
func TestTicketsTraceGoesFirst(t *testing.T) {
	m := newMesh(t)
	from, to := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	ctx := tracing.Begin(t.Context())
	ticket, err := signed.SealTicket(capacity.Ticket{
		Lease: "lease", Stream: "demo", Purpose: capacity.View, Target: to.id, From: from.id, Expires: time.Now().Add(time.Second), Trace: tracing.ToWire(ctx),
	}, from.key)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ ticket, want string }{{ticket, tracing.ID(ctx)}, {"forged", "4bf92f3577b34da6a3ce929d0e0e4736"}} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, to.web.URL+"/whep/demo?ticket="+c.ticket, strings.NewReader(sdptest.Offer(sdptest.Video("0", "recvonly"))))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/sdp")
		req.Header.Set("Traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		p := problem.Read(resp)
		resp.Body.Close()
		if p.Code != problem.BadTicket || p.TraceID != c.want {
			t.Errorf("refused with %q under trace %s, want %s", p.Code, p.TraceID, c.want)
		}
	}
}
