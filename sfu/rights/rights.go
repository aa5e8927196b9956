// Package rights decides what clients may do: who may publish a stream, and who
// may view it.
//
// A client comes with a token, a JWT that a key of the operator's has signed; or
// the operator's hook is asked; or another node of the operator's has checked the
// client and sent it on with a ticket. What a client may do ends: when its token
// expires, or when the key is taken away. A [Grant] says so to the session that
// holds it.
//
// Tokens, secrets and what hooks print are in no error, event or log line.
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
	// lookEach is between two looks at files, and at what has ended.
	lookEach = time.Second
	// maxSpent bounds the tokens that are good once and are remembered, by which a
	// hundred bytes each are held.
	maxSpent = 1 << 16
	// retryUnknown is when to ask again for what could not be found out.
	retryUnknown = 5 * time.Second
)

// Config says where rights come from; one of the sources must be given. Files are
// read again when they change.
type Config struct {
	Network string // whose tokens are good: their aud

	Keys    string // file of a JWK set; "": none
	JWKS    string // URL of one; "": none
	Hook    string // URL that is asked; "": none. With keys both must allow.
	Tickets string // file of secrets, one a line, that the operator's nodes share; "": none

	Sessions    int           // at a time of one token, at this node; 0: as many as the token says
	Refresh     time.Duration // between two looks at JWKS; default 5 s
	HookTimeout time.Duration // default 5 s

	HTTP  *http.Client // for JWKS and Hook; default: one of its own
	Event func(event.Event)
	Log   *slog.Logger
}

// A Request is what a client asks for.
type Request struct {
	Action Action
	Stream string
	Client string // its address and port, for the hook
	Token  string // "": it has none
	// Otherwise says that it came with a credential that is no token, which is
	// not looked at.
	Otherwise bool
}

// Rights checks requests, and watches over what it has granted. It is safe for
// concurrent use.
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
	using  map[string]int   // sessions by whose they are
	spent  map[string]spent // tokens that are good once, by key and ID
	counts counts
}

// spent is a token that is good once.
type spent struct {
	until time.Time // when it has expired
	free  bool      // its session came to nothing: it may be used after all
}

type counts struct {
	checks map[check]uint64
	ended  map[Reason]uint64
}

type check struct{ by, outcome string }

// New reads the files. Its error names the file, or the URL, and what is wrong.
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

// Run reads files and JWKS again, and ends what has expired or lost its key,
// until ctx is done; it returns ctx.Err(). It is called once.
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

// Reload reads the files that have changed, now. It may be called beside Run.
func (r *Rights) Reload() {
	if r.keys != nil {
		r.keys.reload()
	}
	if r.tickets != nil {
		r.tickets.reload()
	}
}

// Check returns what the client may do, as a grant that the caller closes, or a
// [*Refusal]. It waits for the hook, and for keys that are not known yet.
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
		req.Token = "" // the hook is told whose it is
	} else if r.hook == nil {
		return nil, by, refuse(NoToken, "this node takes only clients that another node sends it: ask that one")
	}
	if r.hook != nil {
		by = "hook"
		if refused := r.hook.ask(ctx, req, g); refused != nil {
			return nil, by, refused
		}
	}
	if most := r.cfg.Sessions; most > 0 && g.who != "" && (g.sessions == 0 || most < g.sessions) {
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

// sets are the keys in force; ready is whether all sources have been read.
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

// key is the key of that name, or where a token names none the only one there is.
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

// has reports whether the key with that print is in force. While keys have not
// been read, nothing is known to have gone.
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

// enter counts the grant, and takes its token if that is good once.
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
	if g.sessions > 0 && r.using[g.who] >= g.sessions {
		return refuse(TooMany, "the token allows %d at a time, and there are as many: end one first", g.sessions)
	}
	if g.once != "" {
		r.spent[g.once] = spent{until: g.Expires.Add(Skew)}
	}
	if g.who != "" {
		r.using[g.who]++
	}
	r.grants[g] = struct{}{}
	g.entered = true
	return nil
}

// look ends what is over, and forgets what need not be remembered.
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

// A Source is where keys come from, and how it is doing.
type Source struct {
	Name   string // "file" or "jwks"
	Keys   int
	Read   time.Time // when they were last read well; zero: never
	Good   uint64    // times that they were read, or were as before
	Failed uint64

	Failing bool // it could not be read last; what it said before is in force
}

// Status is how the checks are doing.
type Status struct {
	Sources []Source
	Checks  map[[2]string]uint64 // by who decided and outcome
	Ended   map[Reason]uint64    // sessions, for want of their right
	Granted int                  // now
	Spent   int                  // tokens that are good once, remembered
}

// Status reads it.
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

// Retry is when a client refused for want of knowledge asks again.
func (r *Refusal) Retry() time.Duration {
	if k := r.Kind(); k == Unknown || k == Crowded {
		return retryUnknown
	}
	return 0
}
