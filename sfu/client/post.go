package client

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// PostConfig configures [Post].
type PostConfig struct {
	URL   string // WHIP or WHEP endpoint, http or https
	Token string // for URL's server alone; "": none
	Offer string // SDP

	HTTP *http.Client  // nil: one of its own. Its redirect policy is not used
	Wait time.Duration // how long the offer is repeated after a 409 or 503
	Log  *slog.Logger  // nil: discarded
}

// A Session is a WHIP or WHEP session whose media the caller does itself.
type Session struct{ s *session }

// Post makes an offer, following redirects. ctx bounds it. The error is a
// *[Refused], or wraps [ErrBadURL], [ErrNoConnection] or [ErrBadAnswer].
func Post(ctx context.Context, cfg PostConfig) (*Session, error) {
	u, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s, err := negotiate(ctx, withToken(httpClient(cfg.HTTP), u, cfg.Token), u, cfg.Offer, cfg.Wait, cfg.Log)
	if err != nil {
		return nil, err
	}
	return &Session{s}, nil
}

// Answer is the server's SDP.
func (s *Session) Answer() string { return s.s.answer }

// Close deletes the session at the server. It is no error if the server has
// forgotten it already.
func (s *Session) Close() error { return s.s.end() }
