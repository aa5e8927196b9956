package whip

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"weir/capacity/tracing"
	"weir/sfu/meter"
)

// A firstFrame is the span from the answer to a viewer until the first packet of
// each kind has been sent to it. Its methods may be called on nil.
type firstFrame struct {
	span  trace.Span
	video bool // the span ends with the first video packet
	up    sync.Once
	over  atomic.Bool
}

// awaitFirstFrame begins the span; it returns nil if the span is not recorded.
// It is called before media can flow.
func awaitFirstFrame(ctx context.Context, tracer trace.Tracer, sess *session) *firstFrame {
	_, span := tracing.Start(ctx, tracer, "first frame", trace.SpanKindInternal, tracing.Stream.String(sess.stream.Name))
	if !span.IsRecording() {
		return nil
	}
	return &firstFrame{span: span, video: sess.transport.Video()}
}

// connected records that media can flow. The session says so, or the first
// packet, which may go out before.
func (f *firstFrame) connected() {
	if f != nil {
		f.up.Do(func() { f.span.AddEvent("connected") })
	}
}

// sent records the first packet of a kind.
func (f *firstFrame) sent(m meter.Measure, at time.Time) {
	if f == nil {
		return
	}
	f.connected()
	f.span.AddEvent(string(m), trace.WithTimestamp(at))
	if (m == meter.FirstVideo || !f.video) && !f.over.Swap(true) {
		f.span.End()
	}
}

// ended ends the span when the session is over; word is the reason.
func (f *firstFrame) ended(word string) {
	if f != nil && !f.over.Swap(true) {
		tracing.Fail(f.span, word)
		f.span.End()
	}
}
