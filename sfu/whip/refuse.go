package whip

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/sdp"
)

// fail answers the request with the problem of err.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p problem.Problem
	if refused := refusalOf(err); refused != nil {
		p = *s.noRight(w, r, refused)
	} else {
		p = *s.problemOf(r, err) // copied: other requests may share the problem of a pull
	}
	if p.Stream == "" {
		p.Stream = r.PathValue("stream")
	}
	refusedWith(r.Context(), &p)
	p.Write(w)
}

// problemOf returns err as a problem for the client. It logs an unforeseen
// error.
func (s *Server) problemOf(r *http.Request, err error) *problem.Problem {
	var (
		refusal *capacity.Refusal
		badSDP  sdp.Error
		refused sdp.Unacceptable
		silent  *problem.UnansweredError
	)
	if p := problem.Of(err); p != nil {
		if slices.Contains([]problem.Code{problem.TooManySetups, problem.TooManyWaiting, problem.TooManyFromAddress}, p.Code) {
			s.cfg.eventOf(r.Context(), event.Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: string(p.Code), Detail: p.Detail})
		}
		return p
	}
	switch {
	case errors.As(err, &refusal):
		s.cfg.eventOf(r.Context(), event.Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: refusal.Reason, Detail: refusal.Error()})
		code := problem.NoCapacity
		if refusal.Reason == problem.ReasonUnreachable {
			code = problem.HelperUnreachable // there may be room, but no node confirms it
		}
		p := problem.New(code, refusal.Error()).Retry(max(refusal.RetryAfter, retryBusy))
		p.Reason = refusal.Reason
		return p
	case errors.As(err, &badSDP):
		return problem.New(problem.BadSDP, badSDP.Error())
	case errors.As(err, &refused):
		return s.refuseOffer(r, problem.New(problem.UnusableOffer, refused.Error()))
	case errors.Is(err, sdp.ErrNoCodec):
		return s.refuseOffer(r, problem.New(problem.NoCommonCodec, err.Error()))
	case errors.As(err, &silent):
		s.cfg.eventOf(r.Context(), event.Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: string(problem.NotKnown), Detail: silent.Error()})
		return problem.New(problem.NotKnown, fmt.Sprintf("it is not known yet, try again: %s", silent)).Retry(cmp.Or(silent.RetryAfter, retryNotLive))
	case errors.Is(err, problem.ErrNotLive):
		return problem.New(problem.NotLive, fmt.Sprintf("stream %q is not live: try again when it is published", r.PathValue("stream"))).Retry(retryNotLive)
	case errors.Is(err, problem.ErrClosing), errors.Is(err, context.Canceled), s.ctx.Err() != nil: // or the client has disconnected
		return problem.New(problem.Closing, "this node is ending: ask another one").Retry(retryNotLive)
	case errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Timeout, "the session could not be set up in time: try again").Retry(retryNotLive)
	}
	p := problem.New(problem.Internal, "this node failed; its log says more").Retry(retryBusy)
	p.Request = rand.Text()
	s.log.WarnContext(r.Context(), "request failed", "request", p.Request, "path", r.URL.Path, "err", problem.WithoutURL(err))
	return p
}

// roleAt returns the role of a client that posts to path.
func roleAt(path string) string {
	if strings.HasPrefix(path, "/whip/") {
		return WHIP.role()
	}
	return WHEP.role()
}

// refuseOffer reports that a well-formed offer was refused for its content: the
// client may not show the problem to anybody.
func (s *Server) refuseOffer(r *http.Request, p *problem.Problem) *problem.Problem {
	s.cfg.eventOf(r.Context(), event.Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: string(p.Code), Detail: p.Detail})
	return p
}
