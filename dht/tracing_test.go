package dht

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/dht/dhttest"
	"weir/dht/pb"
)

func attributeOf(s sdktrace.ReadOnlySpan, key attribute.Key) string {
	for _, a := range s.Attributes() {
		if a.Key == key {
			return a.Value.String()
		}
	}
	return ""
}

// A node's own background work begins no trace. A placement for a traced
// request records, at both ends, the peers asked, and each answer below its
// question.
func TestTraceOfPlace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		recorder := tracetest.NewSpanRecorder()
		provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)) // everything is sampled
		nodes := newTestNetworkOf(t, 4, func(int, *testNode) {}, func(c *Config) { c.Tracer = provider.Tracer("test") })
		if _, _, err := nodes[0].Seeker.Place(t.Context(), CapacityTopic(), view(), others(nodes)); err == nil {
			t.Fatal("placed on nobody")
		}
		if started := recorder.Started(); len(started) > 0 {
			t.Errorf("without a request %d spans were begun, such as %s", len(started), started[0].Name())
		}

		ctx, root := provider.Tracer("test").Start(t.Context(), "request")
		placed, _, err := nodes[0].Seeker.Place(ctx, CapacityTopic(), view(), others(nodes[:1]))
		root.End()
		if err != nil {
			t.Fatal(err)
		}
		dhttest.Eventually(t, func() error {
			byID := map[trace.SpanID]sdktrace.ReadOnlySpan{}
			ended := recorder.Ended()
			for _, s := range ended {
				byID[s.SpanContext().SpanID()] = s
			}
			served := map[string]int{}
			for _, s := range ended {
				if s.SpanContext().TraceID() != root.SpanContext().TraceID() {
					return fmt.Errorf("%s is of another trace", s.Name())
				}
				if s.SpanKind() != trace.SpanKindServer {
					continue
				}
				asked := byID[s.Parent().SpanID()]
				if asked == nil {
					return fmt.Errorf("the question of a %s has not ended", s.Name())
				}
				if asked.Name() != s.Name() || asked.SpanKind() != trace.SpanKindClient || attributeOf(s, tracing.Peer) != nodes[0].ID().String() {
					t.Errorf("%s of %s is below %s", s.Name(), attributeOf(s, tracing.Peer), asked.Name())
				}
				served[s.Name()]++
			}
			if served["reserve/reserve"] == 0 || served["reserve/release"] == 0 {
				return fmt.Errorf("served are %v", served)
			}
			for _, s := range ended {
				if s.Name() == "place" && attributeOf(s, tracing.Peer) == placed.Candidate.Record.Node.String() && attributeOf(s, tracing.Topic) == string(CapacityTopic()) && s.Parent().SpanID() == root.SpanContext().SpanID() {
					return nil
				}
			}
			return fmt.Errorf("no span of the placement in %d", len(ended))
		})
	})
}

// Whatever bytes the trace field holds, a request is answered as without it.
func FuzzRequestTrace(f *testing.F) {
	f.Add([]byte{})
	f.Add(tracing.ToWire(tracing.Begin(context.Background())))
	f.Add(bytes.Repeat([]byte{0xff}, 26))
	f.Add(bytes.Repeat([]byte{1}, 5000))
	n := newTestNode(f, func(c *Config) {
		c.Tracer = sdktrace.NewTracerProvider().Tracer("fuzz")
	})
	from := dhttest.ID(f, dhttest.Key(f))
	query := &pb.Query{Topic: string(CapacityTopic()), Need: signed.NeedToWire(capacity.Need{Purpose: capacity.View})}
	f.Fuzz(func(t *testing.T, b []byte) {
		with := n.answers(from, &pb.Request{Op: &pb.Request_Query{Query: query}, Trace: b})
		without := n.answers(from, &pb.Request{Op: &pb.Request_Query{Query: query}})
		if with.Error != "" || !proto.Equal(with, without) {
			t.Errorf("with trace %x: %v, without: %v", b, with, without)
		}
		r := n.answersReserve(from, &pb.ReserveRequest{Op: &pb.ReserveRequest_Release{Release: &pb.Release{Id: "x"}}, Trace: b})
		if r.Error != "" {
			t.Errorf("with trace %x: %v", b, r)
		}
	})
}
