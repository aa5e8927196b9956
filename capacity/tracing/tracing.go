// Package tracing carries the trace of one request from node to node: its
// encoding in messages, tickets and headers, and the names of spans'
// attributes.
//
// A trace has an ID whether spans are exported or not, so that a client can
// quote it and logs can be searched for it. The package does not decide which
// spans are recorded: dht and sfu are given a [trace.Tracer].
package tracing

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Scope is the instrumentation scope of all spans.
const Scope = "weir"

// Attributes of spans beside those of OpenTelemetry's semantic conventions. No
// value contains a token, SDP, a session's ID or a client's address.
const (
	Peer     attribute.Key = "weir.peer.id"    // the other node, of calls; the chosen one, of placements
	Stream   attribute.Key = "weir.stream"     // name
	Role     attribute.Key = "weir.role"       // publisher or viewer
	Purpose  attribute.Key = "weir.purpose"    // of a placement or reservation: publish, view or cascade
	Topic    attribute.Key = "weir.topic"      // in which nodes are searched
	Held     attribute.Key = "weir.held"       // records that holders hold in the topic
	Offered  attribute.Key = "weir.candidates" // nodes found, answered or evaluated
	Passed   attribute.Key = "weir.passed"     // of these, by the policy
	Messages attribute.Key = "weir.messages"   // frames, both ways
	Reason   attribute.Key = "weir.reason"     // a word: why it failed
	Late     attribute.Key = "weir.abandoned"  // the answer was not waited for
)

// Attributes of the semantic conventions (v1.43) that dht and sfu set.
const (
	ErrorType attribute.Key = "error.type"
	RPCSystem attribute.Key = "rpc.system.name"
	RPCMethod attribute.Key = "rpc.method"
	Method    attribute.Key = "http.request.method"
	Route     attribute.Key = "http.route"
	Status    attribute.Key = "http.response.status_code"
	Scheme    attribute.Key = "url.scheme"
	UserAgent attribute.Key = "user_agent.original"
)

// System is the value of RPCSystem for requests between nodes.
const System = "weir"

const (
	// wireSize is the size in bytes of a version, the trace's ID, the span's ID
	// and flags, as in traceparent (W3C Trace Context, section 3.2), but in
	// binary.
	wireSize = 1 + 16 + 8 + 1
	// MaxWire bounds the input in bytes: later versions may append fields.
	MaxWire = 64
	// maxHeader bounds a traceparent in bytes, for the same reason.
	maxHeader = 128
)

// ToWire encodes ctx's trace for a message; nil if ctx has none.
func ToWire(ctx context.Context) []byte {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return nil
	}
	traceID, spanID := sc.TraceID(), sc.SpanID()
	b := make([]byte, 1, wireSize) // version 0
	b = append(b, traceID[:]...)
	b = append(b, spanID[:]...)
	return append(b, byte(sc.TraceFlags()&trace.FlagsSampled))
}

// FromWire returns ctx with the trace in another node's message. A malformed
// trace, or one of an invalid version, leaves ctx as it is: a trace is never a
// reason to refuse a request. The tracer decides whether to follow the other
// node's sampling flag.
func FromWire(ctx context.Context, b []byte) context.Context {
	if len(b) < wireSize || len(b) > MaxWire || b[0] == 0xff || b[0] == 0 && len(b) != wireSize {
		return ctx
	}
	return withRemote(ctx, trace.TraceID(b[1:17]), trace.SpanID(b[17:25]), b[25])
}

func withRemote(ctx context.Context, traceID trace.TraceID, spanID trace.SpanID, flags byte) context.Context {
	sc := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(flags) & trace.FlagsSampled, Remote: true,
	})
	if !sc.IsValid() { // zeros
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, sc)
}

// FromHeader returns ctx with the trace in a client's traceparent (W3C Trace
// Context, section 3.2). A malformed one, or one of several, is ignored. A
// tracestate is not read, because it would have to be passed on.
func FromHeader(ctx context.Context, h http.Header) context.Context {
	all := h.Values("Traceparent")
	if len(all) != 1 || len(all[0]) > maxHeader {
		return ctx
	}
	fields := strings.Split(all[0], "-")
	if len(fields) < 4 || fields[0] == "ff" || fields[0] == "00" && len(fields) != 4 {
		return ctx
	}
	var raw [4][16]byte
	for i, size := range []int{1, 16, 8, 1} {
		f := fields[i]
		if len(f) != 2*size || strings.ToLower(f) != f {
			return ctx
		}
		if _, err := hex.Decode(raw[i][:], []byte(f)); err != nil {
			return ctx
		}
	}
	return withRemote(ctx, raw[1], trace.SpanID(raw[2][:8]), raw[3][0])
}

// Begin returns ctx with a trace, unless it has one: an ID to quote and search
// for, with the sampled flag off.
func Begin(ctx context.Context) context.Context {
	if trace.SpanContextFromContext(ctx).IsValid() {
		return ctx
	}
	var id [24]byte
	_, _ = rand.Read(id[:]) // never fails
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID(id[:16]), SpanID: trace.SpanID(id[16:]),
	}))
}

// ID is the ID of ctx's trace in hexadecimal digits, or "".
func ID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}

// Carry returns to with the trace of from, but without its values and its end:
// for work that goes on after the request that began it.
func Carry(to, from context.Context) context.Context {
	span := trace.SpanFromContext(from)
	if !span.SpanContext().IsValid() {
		return to
	}
	return trace.ContextWithSpan(to, span)
}

// Start is t.Start if ctx has a trace. If it has none, as in a node's
// background work, it begins no span.
func Start(ctx context.Context, t trace.Tracer, name string, kind trace.SpanKind, attrs ...attribute.KeyValue) (context.Context, trace.Span) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, trace.SpanFromContext(ctx)
	}
	return t.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attrs...))
}

// Fail marks a span as failed, with a word of a bounded set. The text of err is
// left out: it may contain addresses, and other nodes' text.
func Fail(span trace.Span, word string) {
	if span.IsRecording() {
		span.SetStatus(codes.Error, word)
		span.SetAttributes(ErrorType.String(word))
	}
}

// Header is the response header with the trace, in the form of the draft "W3C
// Trace Context, HTTP Response": version, trace, span, flags.
const Header = "Traceresponse"

// SetHeader sets ctx's trace in an answer's header.
func SetHeader(h http.Header, ctx context.Context) {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return
	}
	h.Set(Header, "00-"+sc.TraceID().String()+"-"+sc.SpanID().String()+"-"+(sc.TraceFlags()&trace.FlagsSampled).String())
}

// InHeader is the ID of the trace that SetHeader has set in h, or "".
func InHeader(h http.Header) string {
	fields := strings.Split(h.Get(Header), "-")
	if len(fields) != 4 || len(fields[1]) != 32 {
		return ""
	}
	return fields[1]
}
