package seek

import (
	"context"
	"errors"

	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/dht/holder"
	"weir/dht/overlay"
	"weir/dht/place"
)

// errorType is why a search or a placement failed, as one word of a bounded set.
func errorType(err error) string {
	if errors.Is(err, place.ErrUnanswered) {
		return NotKnown
	}
	return overlay.ErrorType(err)
}

// placing begins the span of a placement; placed ends it.
func (s *Seeker) placing(ctx context.Context, topic holder.Topic, need capacity.Need) (context.Context, trace.Span) {
	ctx, span := tracing.Start(ctx, s.cfg.Tracer, "place", trace.SpanKindInternal)
	if span.IsRecording() {
		span.SetAttributes(tracing.Topic.String(string(topic)), tracing.Purpose.String(need.Purpose.String()))
		if need.Stream != "" {
			span.SetAttributes(tracing.Stream.String(need.Stream))
		}
	}
	return ctx, span
}

// placed ends the span that placing began.
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
		span.SetAttributes(tracing.Reason.String(capacity.Printable(d.Refused, 64)))
	}
	switch {
	case err == nil:
	case IsRefusal(err):
		tracing.Fail(span, "refused")
	default:
		tracing.Fail(span, errorType(err))
	}
}
