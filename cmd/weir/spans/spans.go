package spans

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/urfave/cli/v2"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/time/rate"

	"weir/capacity/tracing"
	"weir/cmd/weir/build"
	"weir/cmd/weir/cmdline"
	"weir/sfu/problem"
)

const (
	// spansWaiting bounds the spans that wait to be exported; more are dropped.
	// One takes about 1.5 KB.
	spansWaiting = 4096
	// spansAtOnce bounds the spans exported in one request, and spansEvery how
	// long one waits for others.
	spansAtOnce = 512
	spansEvery  = time.Second
	// exportTime bounds one request, answer included, and exportEnd the export
	// of the remaining spans when the node ends.
	exportTime = 5 * time.Second
	exportEnd  = 2 * time.Second
	// exportRetry is the pause after a failed request. It doubles, up to
	// exportRetryMost; meanwhile spans wait, or are dropped.
	exportRetry     = time.Second
	exportRetryMost = 30 * time.Second

	// Bounds on sampling requested by others, independent of --trace-ratio: for
	// all clients together, all nodes together and each node, the local root
	// spans per second, and the burst.
	clientSamples, clientSamplesAtOnce = 20, 40
	peerSamples, peerSamplesAtOnce     = 500, 1000
	eachSamples, eachSamplesAtOnce     = 50, 100
	// peersSampled bounds the nodes with a limit of their own.
	peersSampled = 1024

	// tracesPath is the path of traces in OTLP over HTTP, below the base URL.
	tracesPath = "/v1/traces"
)

// Flags are the flags of tracing.
func Flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "otlp-endpoint", Usage: "base `URL` of an OpenTelemetry collector (OTLP over HTTP) to send spans of placements to, such as http://127.0.0.1:4318; headers for it by OTEL_EXPORTER_OTLP_HEADERS", DefaultText: "none are sent", EnvVars: cmdline.Env("OTLP_ENDPOINT")},
		&cli.Float64Flag{Name: "trace-ratio", Usage: "`SHARE` of the requests, 0 to 1, whose spans are sent to --otlp-endpoint; a request that says whether it is traced is not counted", Value: 1, EnvVars: cmdline.Env("TRACE_RATIO")},
	}
}

// Config is the checked content of [Flags].
type Config struct {
	endpoint *url.URL // complete; nil: nothing is exported
	ratio    float64
}

// ConfigOf reads the flags of c. The error names the wrong one.
func ConfigOf(c *cli.Context) (Config, error) {
	cfg := Config{ratio: c.Float64("trace-ratio")}
	if !(cfg.ratio >= 0 && cfg.ratio <= 1) {
		return cfg, fmt.Errorf("--trace-ratio %v: want a share from 0 to 1", cfg.ratio)
	}
	s := c.String("otlp-endpoint")
	if s == "" {
		if c.IsSet("trace-ratio") {
			return cfg, errors.New("--trace-ratio: give --otlp-endpoint too, where the spans are to be sent")
		}
		return cfg, nil
	}
	var err error
	cfg.endpoint, err = otlpEndpoint(s)
	return cfg, err
}

// otlpEndpoint reads a base URL, or that of traces itself.
func otlpEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return nil, errors.New("--otlp-endpoint: want a URL such as http://127.0.0.1:4318, of OTLP over HTTP")
	case u.User != nil:
		return nil, errors.New("--otlp-endpoint: leave the password out of the URL, where others see it: OTEL_EXPORTER_OTLP_HEADERS=\"authorization=Basic …\" in the environment is for that")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("--otlp-endpoint %s: want a URL without ? and #; OTEL_EXPORTER_OTLP_HEADERS in the environment is for keys", u.Redacted())
	}
	if !strings.HasSuffix(u.Path, tracesPath) {
		u.Path = strings.TrimSuffix(u.Path, "/") + tracesPath
	}
	return u, nil
}

// notHeeded are variables of OpenTelemetry that weir does not read, with the
// setting to use instead. Each setting has one place.
var notHeeded = map[string]string{
	"OTEL_EXPORTER_OTLP_ENDPOINT":                  "--otlp-endpoint",
	"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT":           "--otlp-endpoint",
	"OTEL_EXPORTER_OTLP_PROTOCOL":                  "none: it is OTLP over HTTP, in protobuf",
	"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL":           "none: it is OTLP over HTTP, in protobuf",
	"OTEL_EXPORTER_OTLP_CERTIFICATE":               "SSL_CERT_FILE",
	"OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE":        "SSL_CERT_FILE",
	"OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE":        "none: give a key by OTEL_EXPORTER_OTLP_HEADERS",
	"OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE": "none: give a key by OTEL_EXPORTER_OTLP_HEADERS",
	"OTEL_TRACES_SAMPLER":                          "--trace-ratio; 0 records only what others ask for",
	"OTEL_TRACES_EXPORTER":                         "--otlp-endpoint, or nothing",
	"OTEL_SDK_DISABLED":                            "no --otlp-endpoint",
}

// New returns the tracer provider of a node, and the queue that exports its
// spans; without an endpoint neither does anything.
func New(cfg Config, about []attribute.KeyValue, log *slog.Logger) (trace.Tracer, *Queue, error) {
	queue := newSpanQueue(log)
	if cfg.endpoint == nil {
		return noop.Tracer{}, queue, nil
	}
	for _, name := range slices.Sorted(maps.Keys(notHeeded)) {
		if os.Getenv(name) != "" {
			log.Warn(name+" is not heeded", "instead", notHeeded[name])
		}
	}
	// The SDK's own errors go to the debug log, not to stderr.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {
		log.Debug("tracing", "err", problem.WithoutURL(err))
	}))
	res, err := resource.New(context.Background(),
		resource.WithAttributes(append(about, semconv.ServiceName("weir"), semconv.ServiceVersion(build.Release()))...),
		resource.WithFromEnv(), // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence
		resource.WithSchemaURL(semconv.SchemaURL),
	)
	if err != nil {
		return nil, nil, cmdline.BadInput(fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err))
	}
	if queue.wire, err = newOTLPClient(cfg.endpoint.String()); err != nil {
		return nil, nil, cmdline.BadInput(err)
	}
	queue.to = otlptrace.NewUnstarted(queue.wire)
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit, limits.AttributeCountLimit = 256, 32
	limits.EventCountLimit, limits.LinkCountLimit = 32, 16
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(newSampler(cfg.ratio)), sdktrace.WithSpanProcessor(queue),
		sdktrace.WithResource(res), sdktrace.WithRawSpanLimits(limits),
	)
	return provider.Tracer(tracing.Scope, trace.WithInstrumentationVersion(build.Release()), trace.WithSchemaURL(semconv.SchemaURL)), queue, nil
}

// A sampler decides which spans are recorded. A request without a trace is
// recorded with the configured probability, and within a trace each span
// follows its root. A client that requests recording by its traceparent, or a
// node by its messages, gets it within a bound, so that others cannot use up
// our export or our CPU.
type sampler struct {
	ratio   float64
	draw    func() float64 // 0…1
	clients *rate.Limiter
	peers   *rate.Limiter

	mu   sync.Mutex
	each map[string]*rate.Limiter // by peer ID, peersSampled at most
}

func newSampler(ratio float64) *sampler {
	return &sampler{
		ratio: ratio, draw: rand.Float64,
		clients: rate.NewLimiter(clientSamples, clientSamplesAtOnce), peers: rate.NewLimiter(peerSamples, peerSamplesAtOnce),
		each: map[string]*rate.Limiter{},
	}
}

// Description implements sdktrace.Sampler.
func (s *sampler) Description() string { return fmt.Sprintf("weir{ratio=%v}", s.ratio) }

// ShouldSample implements sdktrace.Sampler.
func (s *sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	result := sdktrace.SamplingResult{Decision: sdktrace.Drop}
	if s.sample(parent, p.Attributes) {
		result.Decision = sdktrace.RecordAndSample
	}
	return result
}

func (s *sampler) sample(parent trace.SpanContext, attrs []attribute.KeyValue) bool {
	switch {
	case !parent.IsValid():
		return s.draw() < s.ratio
	case !parent.IsRemote(), !parent.IsSampled():
		return parent.IsSampled()
	}
	for _, a := range attrs {
		if a.Key == tracing.Peer {
			return s.of(a.Value.AsString()).Allow() && s.peers.Allow()
		}
	}
	// All requests have the random chance, also those that request recording:
	// choosing a trace ID gains nothing.
	return s.draw() < s.ratio || s.clients.Allow()
}

// of is the limiter of one node.
func (s *sampler) of(id string) *rate.Limiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.each[id]
	if l == nil {
		if len(s.each) >= peersSampled {
			clear(s.each)
		}
		l = rate.NewLimiter(eachSamples, eachSamplesAtOnce)
		s.each[id] = l
	}
	return l
}

// A Queue exports ended spans in the background: ending a span never blocks,
// whatever the collector does. It implements sdktrace.SpanProcessor.
type Queue struct {
	to    sdktrace.SpanExporter // nil: no spans come
	wire  *otlpClient
	log   *slog.Logger
	spans chan sdktrace.ReadOnlySpan

	exported, failed, dropped atomic.Int64

	// The other fields belong to Run, and after it to Close.
	batch    []sdktrace.ReadOnlySpan // taken from spans, and not yet exported or dropped
	troubled bool                    // the log has reported a failing export
	crowded  bool                    // the log has reported dropped spans
	seen     int64                   // dropped at the last check
}

func newSpanQueue(log *slog.Logger) *Queue {
	return &Queue{log: log, spans: make(chan sdktrace.ReadOnlySpan, spansWaiting)}
}

// OnStart implements sdktrace.SpanProcessor.
func (q *Queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

// OnEnd implements sdktrace.SpanProcessor.
func (q *Queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	select {
	case q.spans <- s:
	default:
		q.dropped.Add(1)
	}
}

// Shutdown implements sdktrace.SpanProcessor; Close ends the queue.
func (q *Queue) Shutdown(context.Context) error { return nil }

// ForceFlush implements sdktrace.SpanProcessor.
func (q *Queue) ForceFlush(context.Context) error { return nil }

// Run exports until ctx is done, and returns ctx.Err(). Close exports the rest.
func (q *Queue) Run(ctx context.Context) error {
	if q.to == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(spansEvery)
	defer tick.Stop()
	pause := exportRetry
	var rest <-chan time.Time // until the next request; nil: now
	for {
		in, due := q.spans, false
		if len(q.batch) == spansAtOnce {
			in = nil
		}
		select {
		case s := <-in:
			q.batch = append(q.batch, s)
			due = len(q.batch) == spansAtOnce
		case <-tick.C:
			due = len(q.batch) > 0
		case <-rest:
			rest, due = nil, len(q.batch) > 0
		case <-ctx.Done():
			return ctx.Err()
		}
		if !due || rest != nil {
			continue
		}
		if q.export(ctx) {
			pause = exportRetry
		} else if ctx.Err() == nil {
			rest = time.After(max(pause, q.wire.after()))
			pause = min(2*pause, exportRetryMost)
		}
		q.tellDropped()
	}
}

// export sends the batch, and reports whether the batch is finished: delivered,
// or refused for good.
func (q *Queue) export(ctx context.Context) (done bool) {
	sending, cancel := context.WithTimeout(ctx, exportTime)
	defer cancel()
	err := q.to.ExportSpans(sending, q.batch)
	if err != nil && ctx.Err() != nil {
		return false // the node ends; the collector is not at fault
	}
	count := int64(len(q.batch))
	switch {
	case err == nil:
		q.exported.Add(count)
	case q.wire.refused():
		q.failed.Add(count)
	default:
		q.trouble(err, "they are tried again")
		return false
	}
	q.batch = nil
	if err != nil {
		q.trouble(err, fmt.Sprintf("%d are lost", count))
	} else if q.troubled {
		q.troubled = false
		q.log.Info("spans are exported again", "dropped", q.dropped.Load(), "failed", q.failed.Load())
	}
	return true
}

// trouble logs once that the export fails.
func (q *Queue) trouble(err error, what string) {
	if q.troubled {
		return
	}
	q.troubled = true
	q.log.Warn("spans are not exported: "+q.wire.why(err)+"; "+what, "endpoint", q.wire.endpoint)
}

// tellDropped logs once that spans are dropped, until the queue has room again.
func (q *Queue) tellDropped() {
	dropped := q.dropped.Load()
	switch more := dropped > q.seen; {
	case more && !q.crowded:
		q.crowded = true
		q.log.Warn("spans are dropped: the collector does not take them as fast as they come", "endpoint", q.wire.endpoint, "waiting", len(q.spans))
	case !more && len(q.spans) < spansWaiting/2:
		q.crowded = false
	}
	q.seen = dropped
}

// Close exports the remaining spans, for exportEnd at most. It is called after
// Run has returned, when no span begins any more.
func (q *Queue) Close() {
	if q.to == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), exportEnd)
	defer cancel()
	for {
		for len(q.batch) < spansAtOnce && len(q.spans) > 0 {
			q.batch = append(q.batch, <-q.spans)
		}
		if len(q.batch) == 0 || !q.export(ctx) {
			break
		}
	}
	if left := len(q.batch) + len(q.spans); left > 0 {
		q.log.Warn("spans are lost: the collector did not take them before the node ended", "spans", left)
	}
	_ = q.to.Shutdown(ctx)
	_ = q.wire.Stop(ctx)
}

// Collectors are the metrics of tracing.
func (q *Queue) Collectors() []prometheus.Collector {
	count := func(outcome string, n *atomic.Int64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "weir", Name: "trace_spans_total", Help: "Spans for --otlp-endpoint: exported, failed (refused by the collector) or dropped (queue full).",
			ConstLabels: prometheus.Labels{"outcome": outcome},
		}, func() float64 { return float64(n.Load()) })
	}
	return []prometheus.Collector{count("exported", &q.exported), count("failed", &q.failed), count("dropped", &q.dropped)}
}
