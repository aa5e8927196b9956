package whip

import (
	"context"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/rights"
)

const (
	// maxUserAgent bounds the User-Agent that a span records, in bytes.
	maxUserAgent = 128
)

// traced gives each request that sets a session up, changes or ends it a trace:
// the one of the node that redirected the client, the one that the client
// names, or a new one. The answer carries the trace's ID.
func (s *Server) traced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost, http.MethodPatch, http.MethodDelete:
		default:
			next.ServeHTTP(w, r)
			return
		}
		ctx, attrs := r.Context(), make([]attribute.KeyValue, 0, 8)
		if text := r.URL.Query().Get("ticket"); text != "" && r.Method == http.MethodPost {
			raw, _ := rights.SplitTicket(text)
			shown := &shownTicket{}
			shown.Ticket, shown.err = signed.OpenTicket(raw, s.cfg.Self, time.Now())
			ctx = context.WithValue(ctx, shownTicketKey{}, shown)
			if shown.err == nil {
				attrs = append(attrs, tracing.Peer.String(shown.From.String()))
				if !trace.SpanContextFromContext(ctx).IsValid() { // not redirected by another node
					ctx = tracing.FromWire(ctx, shown.Trace)
				}
			}
		}
		if !trace.SpanContextFromContext(ctx).IsValid() {
			ctx = tracing.FromHeader(ctx, r.Header)
		}
		route := routeOf(r.URL.Path)
		attrs = append(attrs, tracing.Method.String(r.Method), tracing.Route.String(route))
		ctx, span := s.tracer.Start(ctx, r.Method+" "+route, trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attrs...))
		defer span.End()
		ctx = tracing.Begin(ctx)
		tracing.SetHeader(w.Header(), ctx)
		r = r.WithContext(ctx)
		if !span.IsRecording() {
			next.ServeHTTP(w, r)
			return
		}
		span.SetAttributes(tracing.Scheme.String(proxied.Of(r).Scheme))
		if agent := capacity.Printable(r.UserAgent(), maxUserAgent); agent != "" {
			span.SetAttributes(tracing.UserAgent.String(agent))
		}
		seen := &statusSeen{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(seen, r)
		span.SetAttributes(tracing.Status.Int(seen.status))
	})
}

// routeOf returns the route of a path, without names and IDs.
func routeOf(path string) string {
	switch {
	case strings.HasPrefix(path, "/whip/"):
		return "/whip/{stream}"
	case strings.HasPrefix(path, "/whep/"):
		return "/whep/{stream}"
	case strings.HasPrefix(path, "/session/"):
		return "/session/{id}"
	}
	return "/"
}

// A shownTicket is the ticket of a request, opened, or why it is invalid.
type shownTicket struct {
	capacity.Ticket
	err error
}

type shownTicketKey struct{}

// A statusSeen records the status of an answer.
type statusSeen struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusSeen) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusSeen) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refusedWith records the problem that the client receives in the request's
// span.
func refusedWith(ctx context.Context, p *problem.Problem) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.SetAttributes(tracing.ErrorType.String(string(p.Code)))
	if p.Reason != "" {
		span.SetAttributes(tracing.Reason.String(capacity.Printable(p.Reason, problem.MaxReason)))
	}
	if p.Status >= 500 { // a 4xx is no error of the server by the HTTP conventions
		tracing.Fail(span, string(p.Code))
	}
}
