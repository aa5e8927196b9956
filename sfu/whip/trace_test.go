package whip

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"weir/capacity/tracing"
	"weir/sfu/problem"
)

// minimal is a Server with the fields that traced needs.
func minimal(tracer trace.Tracer) *Server { return &Server{tracer: tracer} }

// With any headers and URL of a client, its request continues under a trace,
// whose ID is in the answer and in the problem.
func FuzzRequestTrace(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "", []byte("agent"))
	f.Add("00-", "ticket", []byte{0xff})
	f.Add("", "", bytes.Repeat([]byte{'a'}, 1000))
	recorder := tracetest.NewInMemoryExporter()
	recording := minimal(sdktrace.NewTracerProvider(sdktrace.WithSyncer(recorder)).Tracer("fuzz"))
	silent := minimal(noop.Tracer{})
	f.Fuzz(func(t *testing.T, parent, ticket string, agent []byte) {
		for _, s := range []*Server{recording, silent} {
			recorder.Reset()
			r := httptest.NewRequest(http.MethodPost, "/whep/demo?"+url.Values{"ticket": {ticket}}.Encode(), nil)
			r.Header["Traceparent"], r.Header["User-Agent"] = []string{parent}, []string{string(agent)}
			w, seen := httptest.NewRecorder(), ""
			s.traced(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen = tracing.ID(r.Context())
				problem.New(problem.NotLive, "x").Write(w)
			})).ServeHTTP(w, r)
			p := problem.Read(w.Result())
			if len(seen) != 32 || p.TraceID != seen || tracing.InHeader(w.Header()) != seen {
				t.Fatalf("trace %q, in the problem %q, in the header %q", seen, p.TraceID, w.Header().Get(tracing.Header))
			}
			if want := tracing.ID(tracing.FromHeader(context.Background(), r.Header)); want != "" && want != seen {
				t.Errorf("the client's trace is %s, its request's %s", want, seen)
			}
			for _, span := range recorder.GetSpans() {
				for _, a := range span.Attributes {
					if v := a.Value.String(); len(v) > maxUserAgent || strings.ContainsFunc(v, func(c rune) bool { return c < ' ' }) {
						t.Errorf("%s is %q", a.Key, v)
					}
				}
			}
		}
	})
}

// BenchmarkTraced measures the cost of a trace per request: nothing exported
// (the ID and the header only), or its span recorded, compared with no tracing.
func BenchmarkTraced(b *testing.B) {
	next := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(discarding{}))
	for _, c := range []struct {
		name string
		h    http.Handler
	}{{"none", next}, {"off", minimal(noop.Tracer{}).traced(next)}, {"recorded", minimal(provider.Tracer("bench")).traced(next)}} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			r := httptest.NewRequest(http.MethodPost, "/whep/demo", nil)
			w := httptest.NewRecorder()
			for b.Loop() {
				c.h.ServeHTTP(w, r)
			}
		})
	}
}

// discarding is an exporter that drops spans.
type discarding struct{}

func (discarding) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discarding) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discarding) Shutdown(context.Context) error                  { return nil }
func (discarding) ForceFlush(context.Context) error                { return nil }
