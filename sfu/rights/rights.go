// Package rights is the access control of a node: it decides which clients may
// publish and view which streams.
//
// A client comes with a token, a JWT that a key of the operator has signed; or
// the operator's hook decides; or another node of the operator has checked the
// client and redirected it here with a ticket. A permission ends when its token
// expires, or when the key is removed. A [Grant] reports that to the session
// that holds it.
//
// Errors, events and log lines never contain tokens, secrets or the output of
// hooks.
package rights

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"weir/capacity/event"
)

const (
	// lookEach is the interval of checks of files and of expired rights.
	lookEach = time.Second
	// maxSpent bounds the used one-time tokens that are remembered, a hundred
	// bytes each.
	maxSpent = 1 << 16
	// retryUnknown is the Retry-After when a right could not be determined.
	retryUnknown = 5 * time.Second
)

// Config sets the sources of rights, of which at least one is required. Files
// are read again when they change.
type Config struct {
	Network string // the aud of accepted tokens

	Keys    string // file of a JWK set; "": none
	JWKS    string // URL of a JWK set; "": none
	Hook    string // URL of the hook; "": none. With keys, both must allow.
	Tickets string // file of secrets, one a line, that the operator's nodes share; "": none

	Sessions    int           // limit of concurrent sessions of one token, at this node; 0: only the token's own
	Refresh     time.Duration // interval of fetches of JWKS; default 5 s
	HookTimeout time.Duration // default 5 s

	HTTP  *http.Client // for JWKS and Hook; default: one of its own
	Event func(event.Event)
	Log   *slog.Logger
}

// A Request is the request of a client to publish or to view.
type Request struct {
	Action Action
	Stream string
	Client string // its address and port, for the hook
	Token  string // "": none
	// Otherwise means that the client came with credentials that are no token,
	// which are ignored.
	Otherwise bool
}

// Rights checks requests, and ends grants that expire or lose their key. It is
// safe for concurrent use.
type Rights struct {
	cfg     Config
	log     *slog.Logger
	event   func(event.Event)
	keys    *keyFile    // nil: none
	jwks    *jwksURL    // nil: none
	hook    *hook       // nil: none
	tickets *ticketFile // nil: none

	mu     sync.Mutex
	grants map[*Grant]struct{}
	using  map[string]int   // sessions, by identity
	spent  map[string]spent // used one-time tokens, by key and ID
	counts counts
}

// spent is a used one-time token.
type spent struct {
	until time.Time // its expiry
	free  bool      // its session was not set up: it may be used again
}

type counts struct {
	checks map[check]uint64
	ended  map[Reason]uint64
}

type check struct{ by, outcome string }

// New makes Rights and reads the files. Its error names the file or the URL,
// and the fault.
func New(cfg Config) (*Rights, error) {
	if cfg.Refresh == 0 {
		cfg.Refresh = 5 * time.Second
	}
	if cfg.HookTimeout == 0 {
		cfg.HookTimeout = 5 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Event == nil {
		cfg.Event = func(event.Event) {}
	}
	if cfg.HTTP == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxResponseHeaderBytes = maxHookBody
		cfg.HTTP = &http.Client{Transport: transport}
	}
	client := *cfg.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	r := &Rights{
		cfg: cfg, log: cfg.Log,
		grants: map[*Grant]struct{}{}, using: map[string]int{}, spent: map[string]spent{},
		counts: counts{checks: map[check]uint64{}, ended: map[Reason]uint64{}},
	}
	r.event = func(e event.Event) {
		e.Time = time.Now()
		cfg.Event(e)
	}
	var err error
	if cfg.Keys != "" {
		if r.keys, err = newKeyFile(cfg.Keys, r.event); err != nil {
			return nil, err
		}
	}
	if cfg.Tickets != "" {
		if r.tickets, err = newTicketFile(cfg.Tickets, r.event); err != nil {
			return nil, err
		}
	}
	if cfg.JWKS != "" {
		if r.jwks, err = newJWKS(cfg.JWKS, cfg.Refresh, &client, r.event); err != nil {
			return nil, err
		}
	}
	if cfg.Hook != "" {
		if r.hook, err = newHook(cfg.Hook, cfg.Network, cfg.HookTimeout, &client); err != nil {
			return nil, err
		}
	}
	if r.keys == nil && r.jwks == nil && r.hook == nil && r.tickets == nil {
		return nil, errors.New("rights: no keys, no hook and no tickets")
	}
	return r, nil
}

// Run reads files and JWKS again, and ends grants that have expired or lost
// their key, until ctx is done; it returns ctx.Err(). It is called once.
func (r *Rights) Run(ctx context.Context) error {
	var fetching sync.WaitGroup
	if r.jwks != nil {
		fetching.Go(func() { r.jwks.run(ctx) })
	}
	defer r.cfg.HTTP.CloseIdleConnections()
	if r.keys != nil {
		r.event(event.Event{Kind: event.KeysApplied, Detail: r.keys.path + ": " + r.keys.words})
	}
	if r.tickets != nil {
		r.event(event.Event{Kind: event.KeysApplied, Detail: r.tickets.path + ": " + r.tickets.words})
	}
	defer fetching.Wait()
	tick := time.NewTicker(lookEach)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			r.Reload()
			r.look(now)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Reload reads changed files now. It may be called concurrently with Run.
func (r *Rights) Reload() {
	if r.keys != nil {
		r.keys.reload()
	}
	if r.tickets != nil {
		r.tickets.reload()
	}
}

// Check returns a grant for the client's request, which the caller closes, or a
// [*Refusal]. It waits for the hook, and for a fetch of unknown keys, until ctx
// ends.
func (r *Rights) Check(ctx context.Context, req Request) (*Grant, error) {
	g, by, refused := r.check(ctx, req)
	if refused == nil {
		refused = r.enter(g)
	}
	outcome := "allowed"
	switch {
	case refused == nil:
	case refused.Reason.Kind() == Unknown:
		outcome = "failed"
	default:
		outcome = "refused"
	}
	r.mu.Lock()
	r.counts.checks[check{by, outcome}]++
	r.mu.Unlock()
	if refused != nil {
		refused.Bare = req.Token == ""
		return nil, refused
	}
	return g, nil
}

func (r *Rights) check(ctx context.Context, req Request) (g *Grant, by string, refused *Refusal) {
	g, by = r.newGrant(), "token"
	if r.keys != nil || r.jwks != nil {
		if req.Token == "" && req.Otherwise {
			return nil, by, refuse(NoToken, "the header Authorization is there, but does not begin with Bearer: send the token as Authorization: Bearer, or as ?token= in the URL")
		}
		if req.Token == "" {
			return nil, by, refuse(NoToken, "this node wants a token to %s stream %q: send it as Authorization: Bearer, or as ?token= in the URL", req.Action, req.Stream)
		}
		token, key, refused := r.token(ctx, req)
		if refused != nil {
			return nil, by, refused
		}
		g.take(token, key, req.Token)
		req.Token = "" // the hook gets its subject instead
	} else if r.hook == nil {
		return nil, by, refuse(NoToken, "this node takes only clients that another node sends it: ask that one")
	}
	if r.hook != nil {
		by = "hook"
		if refused := r.hook.ask(ctx, req, g); refused != nil {
			return nil, by, refused
		}
	}
	if most := r.cfg.Sessions; most > 0 && g.identity != "" && (g.sessions == 0 || most < g.sessions) {
		g.sessions = most
	}
	return g, by, nil
}

// token verifies the token of a request, and returns the key that signed it.
func (r *Rights) token(ctx context.Context, req Request) (Token, *Key, *Refusal) {
	h, refused := headerOf(req.Token)
	if refused != nil {
		return Token{}, nil, refused
	}
	try := func() (t Token, key *Key, refused *Refusal) {
		if key, refused = r.key(h.kid); refused == nil {
			t, refused = verify(req.Token, h, key)
		}
		return t, key, refused
	}
	t, key, refused := try()
	// A key may be new at the URL, also under the name of an old one.
	if refused != nil && (refused.Reason == UnknownKey || refused.Reason == NoKeys || refused.Reason == BadSignature) && r.jwks != nil && r.jwks.again(ctx) {
		t, key, refused = try()
	}
	if refused == nil {
		refused = t.allows(r.cfg.Network, req, time.Now())
	}
	return t, key, refused
}

// sets returns the key sets in force; ready reports whether all sources have
// been read.
func (r *Rights) sets() (sets []*KeySet, ready bool) {
	ready = true
	if r.keys != nil {
		sets = append(sets, r.keys.set.Load())
	}
	if r.jwks != nil {
		if set := r.jwks.set.Load(); set != nil {
			sets = append(sets, set)
		} else {
			ready = false
		}
	}
	return sets, ready
}

// key returns the key of that name, or, for a token that names none, the only
// key.
func (r *Rights) key(kid string) (*Key, *Refusal) {
	sets, ready := r.sets()
	var only *Key
	n := 0
	for _, set := range sets {
		for _, k := range set.keys {
			if kid != "" && k.ID == kid {
				return k, nil
			}
			only, n = k, n+1
		}
	}
	switch {
	case !ready:
		return nil, refuse(NoKeys, "the keys that tokens are checked by could not be fetched yet: try again")
	case kid != "":
		return nil, refuse(UnknownKey, "the token is signed by key %s, which is not in force here: it may have been removed", word(kid))
	case n != 1:
		return nil, refuse(UnknownKey, "the token names no key (kid), and there is not just one here")
	}
	return only, nil
}

// has reports whether the key with that thumbprint is in force. Before the keys
// have been read, it is true for all.
func (r *Rights) has(print string) bool {
	sets, ready := r.sets()
	for _, set := range sets {
		for _, k := range set.keys {
			if k.print == print {
				return true
			}
		}
	}
	return !ready
}

// enter counts the grant's session, and marks a one-time token as used.
func (r *Rights) enter(g *Grant) *Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.once != "" {
		switch s, known := r.spent[g.once]; {
		case known && !s.free:
			return refuse(Used, "the token was good once, and has been used")
		case !known && len(r.spent) >= maxSpent:
			return refuse(NoMemory, "as many tokens that are good once are remembered as may be: try again later")
		}
	}
	if g.sessions > 0 && r.using[g.identity] >= g.sessions {
		return refuse(TooMany, "the token allows %d at a time, and there are as many: end one first", g.sessions)
	}
	if g.once != "" {
		r.spent[g.once] = spent{until: g.Expires.Add(Skew)}
	}
	if g.identity != "" {
		r.using[g.identity]++
	}
	r.grants[g] = struct{}{}
	g.entered = true
	return nil
}

// look ends expired grants, and forgets expired one-time tokens.
func (r *Rights) look(now time.Time) {
	r.mu.Lock()
	all := make([]*Grant, 0, len(r.grants))
	for g := range r.grants {
		all = append(all, g)
	}
	for id, s := range r.spent {
		if now.After(s.until) {
			delete(r.spent, id)
		}
	}
	r.mu.Unlock()
	for _, g := range all {
		switch {
		case !g.Expires.IsZero() && !now.Before(g.Expires.Add(g.slack)):
			g.end(Expired)
		case g.print != "" && (r.keys != nil || r.jwks != nil) && !r.has(g.print):
			g.end(KeyRemoved)
		}
	}
}

// A Source is the status of a source of keys.
type Source struct {
	Name   string // "file" or "jwks"
	Keys   int
	Read   time.Time // last successful read; zero: never
	Good   uint64    // successful reads, including unchanged ones
	Failed uint64

	Failing bool // the last read failed; the earlier keys are in force
}

// Status is the state of access control.
type Status struct {
	Sources []Source
	Checks  map[[2]string]uint64 // by the deciding source and the outcome
	Ended   map[Reason]uint64    // sessions ended with their right
	Granted int                  // current grants
	Spent   int                  // used one-time tokens that are remembered
}

// Status returns the current status.
func (r *Rights) Status() Status {
	s := Status{Checks: map[[2]string]uint64{}, Ended: map[Reason]uint64{Expired: 0, KeyRemoved: 0}}
	if r.keys != nil {
		s.Sources = append(s.Sources, r.keys.status())
	}
	if r.jwks != nil {
		s.Sources = append(s.Sources, r.jwks.status())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, n := range r.counts.checks {
		s.Checks[[2]string{c.by, c.outcome}] = n
	}
	for why, n := range r.counts.ended {
		s.Ended[why] = n
	}
	s.Granted, s.Spent = len(r.grants), len(r.spent)
	return s
}

// Retry returns the Retry-After of a refusal of kind Unknown or
// TooManySessions, else 0.
func (r *Refusal) Retry() time.Duration {
	if k := r.Kind(); k == Unknown || k == TooManySessions {
		return retryUnknown
	}
	return 0
}
