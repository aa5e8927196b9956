package dht

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/dht/overlay"
)

// errorWord is why a placement failed, as one word of a bounded set.
func errorWord(err error) string {
	if errors.Is(err, ErrUnanswered) || errors.Is(err, ErrNoHolders) {
		return NotKnown
	}
	return overlay.ErrorWord(err)
}

// placing begins the span of a placement.
func (n *Node) placing(ctx context.Context, topic Topic, need capacity.Need) (context.Context, trace.Span) {
	ctx, span := tracing.Start(ctx, n.tracer, "place", trace.SpanKindInternal)
	if span.IsRecording() {
		span.SetAttributes(tracing.Topic.String(string(topic)), tracing.Purpose.String(need.Purpose.String()))
		if need.Stream != "" {
			span.SetAttributes(tracing.Stream.String(need.Stream))
		}
	}
	return ctx, span
}

// placed ends what placing began.
func (d *Decision) placed(span trace.Span, err error) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	passed := 0
	for _, v := range d.Verdicts {
		if v.Rule == "" {
			passed++
		}
	}
	span.SetAttributes(tracing.Held.Int(d.Held), tracing.Offered.Int(len(d.Verdicts)), tracing.Passed.Int(passed), tracing.Messages.Int(d.Messages))
	if d.Chosen != "" {
		span.SetAttributes(tracing.Peer.String(d.Chosen.String()))
	}
	if d.Refused != "" {
		span.SetAttributes(tracing.Reason.String(clip(d.Refused, 64)))
	}
	switch {
	case err == nil:
	case isRefusal(err):
		tracing.Fail(span, "refused")
	default:
		tracing.Fail(span, errorWord(err))
	}
}
