package tracing

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func header(values ...string) http.Header { return http.Header{"Traceparent": values} }

func TestTraceparent(t *testing.T) {
	for _, c := range []struct {
		name   string
		values []string
		taken  bool
	}{
		{"the example of the recommendation", []string{parent}, true},
		{"not sampled", []string{strings.TrimSuffix(parent, "1") + "0"}, true},
		{"a later version with more fields", []string{"01" + parent[2:] + "-more"}, true},
		{"version 0 with more fields", []string{parent + "-more"}, false},
		{"version ff", []string{"ff" + parent[2:]}, false},
		{"twice", []string{parent, parent}, false},
		{"none", nil, false},
		{"capital letters", []string{strings.ToUpper(parent)}, false},
		{"no trace", []string{"00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01"}, false},
		{"no span", []string{"00-4bf92f3577b34da6a3ce929d0e0e4736-" + strings.Repeat("0", 16) + "-01"}, false},
		{"too long", []string{"01" + parent[2:] + "-" + strings.Repeat("x", maxHeader)}, false},
		{"two IDs of the wrong lengths", []string{"00-4bf92f3577b34da6a3ce929d0e0e47-36" + "00f067aa0ba902b7-01"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sc := trace.SpanContextFromContext(FromHeader(t.Context(), header(c.values...)))
			if sc.IsValid() != c.taken || sc.IsValid() && (!sc.IsRemote() || sc.TraceID().String() != parent[3:35] || sc.SpanID().String() != parent[36:52]) {
				t.Errorf("got %v, %v", sc.TraceID(), sc.SpanID())
			}
		})
	}
}

// A context without a trace gets an ID that is not sampled, and a context with
// a trace keeps it.
func TestBegin(t *testing.T) {
	if ID(t.Context()) != "" || ToWire(t.Context()) != nil || Begin(t.Context()) == t.Context() {
		t.Error("a context has a trace that nobody began")
	}
	ctx := Begin(t.Context())
	if sc := trace.SpanContextFromContext(ctx); !sc.IsValid() || sc.IsSampled() || len(ID(ctx)) != 32 || Begin(ctx) != ctx {
		t.Errorf("began %v, ID %q", sc, ID(ctx))
	}
	if a, b := ID(Begin(t.Context())), ID(Begin(t.Context())); a == b {
		t.Errorf("two traces have the ID %s", a)
	}
	h := http.Header{}
	if SetHeader(h, ctx); InHeader(h) != ID(ctx) {
		t.Errorf("the answer says %q, the trace is %s", h, ID(ctx))
	}
	if carried := Carry(context.Background(), ctx); ID(carried) != ID(ctx) || carried.Done() != nil {
		t.Error("Carry does not carry the trace alone")
	}
}

// Any bytes from another node decode to a trace that is passed on unchanged, or
// to none.
func FuzzFromWire(f *testing.F) {
	wire := ToWire(FromHeader(context.Background(), header(parent)))
	f.Add(wire)
	f.Add([]byte{})
	f.Add(make([]byte, wireSize))
	f.Add(append(bytes.Clone(wire), 1))
	f.Add(append([]byte{1}, append(bytes.Clone(wire[1:]), "later"...)...))
	f.Add(append([]byte{0xff}, wire[1:]...))
	f.Add(bytes.Repeat([]byte{1}, MaxWire+1))
	f.Fuzz(func(t *testing.T, b []byte) {
		ctx := FromWire(context.Background(), b)
		sc := trace.SpanContextFromContext(ctx)
		if !sc.IsValid() {
			if ctx != context.Background() {
				t.Errorf("%x is no trace and has changed the context", b)
			}
			return
		}
		again := ToWire(ctx)
		if len(b) > MaxWire || !sc.IsRemote() || len(again) != wireSize || !bytes.Equal(again[1:25], b[1:25]) || again[25] != b[25]&1 {
			t.Errorf("%x came and %x goes on", b, again)
		}
	})
}

// FromHeader accepts the same as OpenTelemetry's own parser of traceparent,
// within its bound. Unknown flags are no reason to ignore the rest, as in
// section 3.2.2.5.
func FuzzFromHeader(f *testing.F) {
	f.Add(parent)
	f.Add("01" + parent[2:] + "-more")
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7")
	f.Add(parent[:51] + "G-01")
	f.Add("00-" + strings.Repeat("-", 49) + "-01")
	f.Fuzz(func(t *testing.T, value string) {
		got := trace.SpanContextFromContext(FromHeader(context.Background(), header(value)))
		want := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": value}))
		switch {
		case len(value) > maxHeader:
			want = trace.SpanContext{}
		case !want.IsValid() && got.IsValid():
			if fields := strings.Split(value, "-"); fields[0] != "00" || fields[3] < "03" {
				t.Errorf("%q: %v, OpenTelemetry takes none", value, got)
			}
			return
		}
		if got.TraceID() != want.TraceID() || got.SpanID() != want.SpanID() || got.IsSampled() != want.IsSampled() {
			t.Errorf("%q: %v %v %v, OpenTelemetry has %v %v %v", value, got.TraceID(), got.SpanID(), got.IsSampled(), want.TraceID(), want.SpanID(), want.IsSampled())
		}
	})
}

// BenchmarkOff measures a request's trace while nothing is exported: an ID, and
// its encoding to another node.
func BenchmarkOff(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		ctx := Begin(context.Background())
		if len(ToWire(ctx)) == 0 || ID(ctx) == "" {
			b.Fatal("no trace")
		}
	}
}
