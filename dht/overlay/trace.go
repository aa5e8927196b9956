package overlay

import (
	"context"
	"errors"
	"os"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/dht/pb"
)

const maxReason = 256 // bytes of a reason given

// methodOf is the protocol and the operation of a request; one word of a
// bounded set.
func methodOf(req proto.Message) string {
	switch req := req.(type) {
	case *pb.Request:
		switch req.Op.(type) {
		case *pb.Request_Query:
			return "records/query"
		case *pb.Request_Claim:
			return "records/claim"
		case *pb.Request_Fetch:
			return "records/fetch"
		case *pb.Request_Advertise:
			return "records/advertise"
		case *pb.Request_HandOver:
			return "records/hand_over"
		}
	case *pb.ReserveRequest:
		switch req.Op.(type) {
		case *pb.ReserveRequest_Reserve:
			return "reserve/reserve"
		case *pb.ReserveRequest_Release:
			return "reserve/release"
		}
	case *pb.ProvisionRequest:
		switch req.Op.(type) {
		case *pb.ProvisionRequest_Provision:
			return "provision/provision"
		case *pb.ProvisionRequest_Leave:
			return "provision/leave"
		}
	}
	return "_OTHER"
}

// Inject sets ctx's trace in req. A request without a field for it stays as it
// is.
func Inject(ctx context.Context, req proto.Message) {
	wire := tracing.ToWire(ctx)
	switch req := req.(type) {
	case *pb.Request:
		req.Trace = wire
	case *pb.ReserveRequest:
		req.Trace = wire
	case *pb.ProvisionRequest:
		req.Trace = wire
	}
}

// asking begins the span of a request to id that is part of ctx's trace, and
// sets the trace in req. If ctx has none, as in all of a node's own background
// work, nothing is begun.
func asking(ctx context.Context, tracer trace.Tracer, id peer.ID, req proto.Message) (context.Context, trace.Span) {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ctx, trace.SpanFromContext(ctx)
	}
	method := methodOf(req)
	ctx, span := tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(tracing.RPCSystem.String(tracing.System), tracing.RPCMethod.String(method), tracing.Peer.String(id.String()))
	}
	Inject(ctx, req)
	return ctx, span
}

// heardBack ends the span that asking began.
func heardBack(span trace.Span, resp proto.Message, err error) {
	defer span.End()
	if !span.IsRecording() {
		return
	}
	switch {
	case errors.Is(err, context.Canceled):
		span.SetAttributes(tracing.Late.Bool(true)) // others were faster
	case err != nil:
		tracing.Fail(span, ErrorType(err))
	default:
		replied(span, resp)
	}
}

// Answer returns answer's reply to from's request. If the request has a trace,
// both are in a span of it.
func Answer[Req, Resp proto.Message](s *Server, from peer.ID, req Req, answer func(context.Context, peer.ID, Req) Resp) Resp {
	var wire []byte
	if traced, ok := any(req).(interface{ GetTrace() []byte }); ok {
		wire = traced.GetTrace()
	}
	ctx := tracing.FromWire(s.ctx, wire)
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return answer(ctx, from, req)
	}
	method := methodOf(req)
	// Set the attributes at once: the sampler decides by the asking peer.
	ctx, span := s.tracer.Start(ctx, method, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(
		tracing.RPCSystem.String(tracing.System), tracing.RPCMethod.String(method), tracing.Peer.String(from.String())))
	defer span.End()
	resp := answer(ctx, from, req)
	if tracing.ID(ctx) != "" {
		s.log.DebugContext(ctx, "request answered", "peer", from)
	}
	if span.IsRecording() {
		replied(span, resp)
	}
	return resp
}

// replied sets the answer's outcome in span.
func replied(span trace.Span, resp proto.Message) {
	refused := func(r *pb.Refusal) {
		if r != nil {
			span.SetAttributes(tracing.Reason.String(capacity.Printable(r.Reason, 64)))
		}
	}
	failed := func(text string) {
		if text != "" {
			tracing.Fail(span, "refused") // the text may contain anything
		}
	}
	switch resp := resp.(type) {
	case *pb.Response:
		failed(resp.Error)
		if q := resp.GetQuery(); q != nil {
			span.SetAttributes(tracing.Held.Int64(int64(q.Held)), tracing.Offered.Int(len(q.Sealed)+len(q.Digests)))
		}
		if c := resp.GetClaim(); c != nil {
			span.SetAttributes(tracing.Reason.String(c.Own.String()))
		}
	case *pb.ReserveResponse:
		failed(resp.Error)
		refused(resp.Refusal)
	case *pb.ProvisionResponse:
		failed(resp.Error)
		refused(resp.Refusal)
	}
}

// ErrorType is why a request got no answer, as one word of a bounded set.
func ErrorType(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return "timeout"
	case errors.Is(err, ErrUnreachable):
		return "unreachable"
	case errors.Is(err, network.ErrResourceLimitExceeded):
		return "busy"
	case errors.Is(err, context.Canceled):
		return "canceled"
	}
	return "_OTHER" // as the semantic conventions call it
}

// Silence is why a node gave no answer, for people, in few words.
func Silence(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, ErrLate):
		return "no answer in time"
	case errors.Is(err, ErrUnreachable):
		return "unreachable"
	case errors.Is(err, network.ErrResourceLimitExceeded):
		return "this node has too many requests under way"
	}
	return capacity.Printable(err.Error(), maxReason)
}
