package spans

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/time/rate"

	"weir/capacity/tracing"
	"weir/cmd/weir/logs"
)

func TestOTLPEndpoint(t *testing.T) {
	for _, c := range []struct{ given, want, says string }{
		{"http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces", ""},
		{"https://otlp.example.org/", "https://otlp.example.org/v1/traces", ""},
		{"https://otlp.example.org/otlp", "https://otlp.example.org/otlp/v1/traces", ""},
		{"https://otlp.example.org/otlp/v1/traces", "https://otlp.example.org/otlp/v1/traces", ""},
		{"127.0.0.1:4318", "", "such as http://127.0.0.1:4318"},
		{"grpc://127.0.0.1:4317", "", "OTLP over HTTP"},
		{"http://", "", "want a URL"},
		{"https://me:secret@otlp.example.org", "", "OTEL_EXPORTER_OTLP_HEADERS"},
		{"https://otlp.example.org/?key=secret", "", "OTEL_EXPORTER_OTLP_HEADERS"},
	} {
		u, err := otlpEndpoint(c.given)
		switch {
		case c.says == "" && (err != nil || u.String() != c.want):
			t.Errorf("%s: %v, %v, want %s", c.given, u, err, c.want)
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "me:secret")):
			t.Errorf("%s: %v, want %q", c.given, err, c.says)
		}
	}
}

// Others get as many traces recorded as allowed, and no more, whatever IDs they
// choose; a trace that is marked as not sampled is not recorded.
func TestSampler(t *testing.T) {
	parent := func(sampled, remote bool) trace.SpanContext {
		flags := trace.TraceFlags(0)
		if sampled {
			flags = trace.FlagsSampled
		}
		return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{15: 1}, SpanID: trace.SpanID{1}, TraceFlags: flags, Remote: remote})
	}
	from := func(id string) []attribute.KeyValue { return []attribute.KeyValue{tracing.Peer.String(id)} }
	count := func(s *sampler, n int, sc trace.SpanContext, attrs []attribute.KeyValue) (sampled int) {
		for range n {
			if s.sample(sc, attrs) {
				sampled++
			}
		}
		return sampled
	}
	sampler := func(ratio float64) *sampler {
		s := newSampler(ratio)
		s.draw = func() float64 { return 0.5 }
		s.clients, s.peers = rate.NewLimiter(0, clientSamplesAtOnce), rate.NewLimiter(0, peerSamplesAtOnce)
		return s
	}
	never, always := sampler(0), sampler(1)
	if count(never, 10, trace.SpanContext{}, nil) != 0 || count(always, 10, trace.SpanContext{}, nil) != 10 {
		t.Error("the ratio does not decide about requests that begin a trace")
	}
	if count(never, 10, parent(true, false), nil) != 10 || count(always, 10, parent(false, false), nil) != 0 {
		t.Error("a span does not go by the one that began it")
	}
	if count(always, 10, parent(false, true), nil) != 0 || count(always, 10, parent(false, true), from("a")) != 0 {
		t.Error("what others do not want recorded is recorded")
	}
	if got := count(never, 1000, parent(true, true), nil); got != clientSamplesAtOnce {
		t.Errorf("clients had %d recorded, want %d", got, clientSamplesAtOnce)
	}
	if got := count(always, 1000, parent(true, true), nil); got != 1000 {
		t.Errorf("clients had %d of 1000 recorded where everything is", got)
	}
	if got := count(always, 1000, parent(true, true), from("a")); got < eachSamplesAtOnce || got > 2*eachSamplesAtOnce {
		t.Errorf("one node had %d recorded, want about %d", got, eachSamplesAtOnce)
	}
	all := 0
	for i := range 3000 {
		all += count(always, 5, parent(true, true), from(fmt.Sprint(i)))
	}
	if all > peerSamplesAtOnce || len(always.each) > peersSampled {
		t.Errorf("3000 nodes had %d recorded, and %d are remembered", all, len(always.each))
	}
}

// A fakeExporter is a collector with behaviour set by a test.
type fakeExporter struct {
	mu     sync.Mutex
	took   int
	asked  int
	answer func(ctx context.Context) error
}

func (f *fakeExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	f.mu.Lock()
	f.asked++
	answer := f.answer
	f.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.took += len(spans)
	return nil
}

func (f *fakeExporter) Shutdown(context.Context) error { return nil }

func (f *fakeExporter) counts() (asked, took int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked, f.took
}

func (f *fakeExporter) set(answer func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = answer
}

func hang(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// endSpans ends n spans, as the SDK does.
func endSpans(q *Queue, n int) {
	span := tracetest.SpanStub{SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled,
	})}.Snapshot()
	for range n {
		q.OnEnd(span)
	}
}

// A logText is the text of a log.
type logText struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// While a collector hangs, ending spans does not block; spans that fit are kept
// and exported when it is back, the others are counted, and the log reports
// each once. At the end a collector that hangs again has two seconds.
func TestSpanQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var text logText
		to := &fakeExporter{}
		to.set(hang)
		q := newSpanQueue(slog.New(slog.NewTextHandler(&text, nil)))
		q.to, q.wire = to, otlpClientTo(t, "http://127.0.0.1:4317/v1/traces")
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- q.Run(ctx) }()

		began := time.Now()
		endSpans(q, spansAtOnce)
		synctest.Wait() // the first batch is on its way
		endSpans(q, spansWaiting+100)
		if time.Since(began) != 0 {
			t.Errorf("ending spans took %v", time.Since(began))
		}
		time.Sleep(5 * time.Minute)
		if got := q.dropped.Load(); got != 100 {
			t.Errorf("%d dropped, want 100", got)
		}
		if asked, _ := to.counts(); asked < 5 || asked > 5*60/5 {
			t.Errorf("the collector was asked %d times in 5 minutes", asked)
		}
		to.set(nil)
		time.Sleep(2 * exportRetryMost)
		if _, took := to.counts(); q.exported.Load() != spansAtOnce+spansWaiting || took != spansAtOnce+spansWaiting {
			t.Errorf("%d exported and %d came, want %d", q.exported.Load(), took, spansAtOnce+spansWaiting)
		}
		for _, line := range []string{"spans are not exported", "spans are dropped", "spans are exported again"} {
			if n := strings.Count(text.String(), line); n != 1 {
				t.Errorf("the log says %d times that %s:\n%s", n, line, text.String())
			}
		}
		if !strings.Contains(text.String(), "over HTTP it is 4318") {
			t.Errorf("nothing is said of the port of gRPC:\n%s", text.String())
		}

		to.set(hang)
		endSpans(q, 10)
		cancel()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			t.Errorf("run = %v", err)
		}
		began = time.Now()
		q.Close()
		if took := time.Since(began); took > exportEnd || !strings.Contains(text.String(), "spans are lost") {
			t.Errorf("it ended after %v:\n%s", took, text.String())
		}
	})
}

// The remaining spans are sent when a node ends.
func TestSpanQueueFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &fakeExporter{}
		q := newSpanQueue(slog.New(slog.DiscardHandler))
		q.to, q.wire = to, otlpClientTo(t, "http://127.0.0.1:4318/v1/traces")
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- q.Run(ctx) }()
		endSpans(q, 10)
		synctest.Wait()
		cancel()
		<-ran
		endSpans(q, spansAtOnce) // of the last clients
		q.Close()
		if _, took := to.counts(); took != 10+spansAtOnce {
			t.Errorf("%d came, want %d", took, 10+spansAtOnce)
		}
	})
}

// Answers of a real exporter: which are retried, and which are not.
func TestExporterAnswers(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/traces" || r.Header.Get("Authorization") != "key" {
			t.Errorf("%s, %v", r.URL, r.Header)
		}
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=key")
	endpoint, err := otlpEndpoint(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_TRACES_SAMPLER", "always_off")
	var text logText
	tracer, q, err := New(Config{endpoint: endpoint, ratio: 1}, []attribute.KeyValue{attribute.String("weir.node.name", "n")}, slog.New(slog.NewTextHandler(&text, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if said := text.String(); !strings.Contains(said, "OTEL_TRACES_SAMPLER is not heeded") || strings.Count(said, "\n") != 1 {
		t.Errorf("of the environment it is said: %s", said)
	}
	for _, c := range []struct {
		status int
		done   bool
	}{{200, true}, {400, true}, {404, true}, {307, true}, {429, false}, {502, false}, {503, false}, {504, false}} {
		status = c.status
		_, span := tracer.Start(t.Context(), "test")
		span.End()
		q.batch = append(q.batch, <-q.spans)
		if done := q.export(t.Context()); done != c.done || (q.batch == nil) != c.done || q.wire.after() != 7*time.Second {
			t.Errorf("%d: done with it: %v, want %v; after %v", c.status, done, c.done, q.wire.after())
		}
		q.batch = nil
	}
	if q.exported.Load() != 1 || q.failed.Load() != 3 {
		t.Errorf("%d exported, %d failed, want 1 and 3", q.exported.Load(), q.failed.Load())
	}
}

// Log lines of a request have its trace ID, others have none.
func TestTracedLog(t *testing.T) {
	var text bytes.Buffer
	log, err := logs.New(&text, new(slog.LevelVar), "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	ctx := tracing.Begin(t.Context())
	log.With("a", 1).InfoContext(ctx, "of a request")
	log.Info("of nobody")
	lines := strings.Split(strings.TrimSpace(text.String()), "\n")
	if !strings.HasSuffix(lines[0], "a=1 trace_id="+tracing.ID(ctx)) || strings.Contains(lines[1], "trace_id") {
		t.Errorf("logged\n%s", text.String())
	}
}
