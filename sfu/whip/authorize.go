package whip

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/rights"
)

var (
	actionOf  = map[Kind]rights.Action{WHIP: rights.Publish, WHEP: rights.View}
	problemAs = map[rights.Kind]problem.Code{
		rights.Unauthorized: problem.Unauthorized, rights.Forbidden: problem.Forbidden,
		rights.TooManySessions: problem.TooManySessions, rights.Unknown: problem.RightsUnknown,
	}
)

// authorize checks whether a client may do what it requests: by the ticket of
// the node that redirected it, which is returned, or by its token. The grant is
// nil on a node without access control.
func (s *Server) authorize(ctx context.Context, r *http.Request, kind Kind, name string) (*rights.Grant, *capacity.Ticket, error) {
	if shown := r.URL.Query().Get("ticket"); shown != "" {
		raw, carried := rights.SplitTicket(shown)
		ticket, err := ticketOf(r, kind, name)
		if err != nil {
			return nil, nil, err
		}
		grant, err := s.cfg.Rights.GrantOf(raw, carried)
		return grant, ticket, err
	}
	if s.cfg.Rights == nil {
		return nil, nil, nil
	}
	token, otherwise, err := tokenOf(r)
	if err != nil {
		return nil, nil, err
	}
	grant, err := s.cfg.Rights.Check(ctx, rights.Request{Action: actionOf[kind], Stream: name, Client: proxied.Of(r).String(), Token: token, Otherwise: otherwise})
	return grant, nil, err
}

// ticketOf checks the ticket that another node issued to the client.
func ticketOf(r *http.Request, kind Kind, name string) (*capacity.Ticket, error) {
	shown := r.Context().Value(shownTicketKey{}).(*shownTicket) // by traced
	t, err, why := shown.Ticket, shown.err, ""
	switch want := map[Kind]capacity.Purpose{WHIP: capacity.Publish, WHEP: capacity.View}[kind]; {
	case errors.Is(err, capacity.ErrExpired):
		why = "it has expired"
	case errors.Is(err, capacity.ErrWrongTarget):
		why = "it is for another node"
	case err != nil:
		why = "it is not whole, or not of the node that it names"
	case t.Stream != name:
		why = fmt.Sprintf("it is for stream %q", t.Stream)
	case t.Purpose != want:
		why = fmt.Sprintf("it is for %s", t.Purpose)
	default:
		return &t, nil
	}
	return nil, problem.New(problem.BadTicket, "the ticket is not good here: "+why+"; ask the server that sent you again")
}

// tokenOf returns the client's token, from the header (RFC 6750, section 2.1)
// or, for players that cannot set one, from the URL. Otherwise reports that the
// header carries another kind of credentials.
func tokenOf(r *http.Request) (token string, otherwise bool, err error) {
	inURL, inHeader := r.URL.Query().Get("token"), ""
	header := r.Header.Get("Authorization")
	if end := strings.IndexAny(header+" ", " \t"); strings.EqualFold(header[:end], "Bearer") {
		inHeader = strings.TrimSpace(header[end:])
	} else {
		otherwise = header != ""
	}
	if inURL != "" && inHeader != "" && inURL != inHeader {
		return "", false, &rights.Refusal{Reason: rights.TwoTokens, Detail: "there is one token in the header Authorization and another in the URL: send one"}
	}
	if inHeader != "" {
		return inHeader, false, nil
	}
	return inURL, otherwise, nil
}

// noRight returns the problem for a client without the right it needs, and sets
// the WWW-Authenticate header.
func (s *Server) noRight(w http.ResponseWriter, r *http.Request, refused *rights.Refusal) *problem.Problem {
	s.cfg.eventOf(r.Context(), event.Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: string(refused.Reason), Detail: refused.Detail})
	kind := refused.Kind()
	p := problem.New(problemAs[kind], refused.Detail).Retry(refused.Retry())
	p.Reason = string(refused.Reason)
	switch { // RFC 6750, section 3
	case kind == rights.Unauthorized && refused.Bare:
		w.Header().Set("WWW-Authenticate", `Bearer realm="weir"`)
	case kind == rights.Unauthorized:
		w.Header().Set("WWW-Authenticate", `Bearer realm="weir", error="invalid_token", error_description="`+string(refused.Reason)+`"`)
	case kind == rights.Forbidden:
		w.Header().Set("WWW-Authenticate", `Bearer realm="weir", error="insufficient_scope", error_description="`+string(refused.Reason)+`"`)
	}
	return p
}

// refusalOf returns the refusal in err, or nil.
func refusalOf(err error) *rights.Refusal {
	var refused *rights.Refusal
	if errors.As(err, &refused) {
		return refused
	}
	return nil
}
