package rights

import (
	"time"
)

// A Grant is what one client may do. All its methods may be called on nil, which
// is the grant of a node that asks nobody for a right: it never ends.
type Grant struct {
	Subject string    // whose it is; "": not known
	TokenID string    //
	Expires time.Time // zero: never

	rights   *Rights
	slack    time.Duration // by how much Expires may be late, since another clock said it
	print    string        // of the key; "": none
	who      string        // whose sessions it counts for; "": nobody's
	sessions int           // most of those; 0: not bounded
	once     string        // its token's name in spent; "": it may be used again
	over     chan struct{} // closed when it has ended

	// The rest belongs to Rights.mu.
	entered bool
	kept    bool   // a session came of it
	why     Reason // set before over is closed
}

func (r *Rights) newGrant() *Grant { return &Grant{rights: r, over: make(chan struct{})} }

// take makes the grant what a token says.
func (g *Grant) take(t Token, key *Key, raw string) {
	g.Subject, g.TokenID, g.Expires, g.slack, g.sessions = t.Subject, t.ID, t.Expires, Skew, t.Sessions
	g.print = key.print
	switch {
	case t.Subject != "":
		g.who = "sub " + t.Subject
	case t.ID != "":
		g.who = "jti " + key.print + " " + t.ID
	default:
		g.who = "raw " + digest(raw)
	}
	if t.Once {
		g.once = key.print + " " + t.ID
	}
}

// Over is closed when the right has ended.
func (g *Grant) Over() <-chan struct{} {
	if g == nil {
		return nil
	}
	return g.over
}

// Why says why it has ended, once Over is closed.
func (g *Grant) Why() Reason {
	g.rights.mu.Lock()
	defer g.rights.mu.Unlock()
	return g.why
}

// Keep says that a session came of the grant, here or at another node: a token
// that is good once has been used then.
func (g *Grant) Keep() {
	if g == nil {
		return
	}
	g.rights.mu.Lock()
	defer g.rights.mu.Unlock()
	g.kept = true
}

// Close gives back what the grant held. It may be called more than once.
func (g *Grant) Close() {
	if g == nil {
		return
	}
	r := g.rights
	r.mu.Lock()
	defer r.mu.Unlock()
	if !g.entered {
		return
	}
	g.entered = false
	delete(r.grants, g)
	if g.who != "" {
		if r.using[g.who]--; r.using[g.who] == 0 {
			delete(r.using, g.who)
		}
	}
	if s, known := r.spent[g.once]; known && !g.kept {
		s.free = true
		r.spent[g.once] = s
	}
}

func (g *Grant) end(why Reason) {
	r := g.rights
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.why != "" || !g.entered {
		return
	}
	g.why = why
	if g.kept {
		r.counts.ended[why]++
	}
	close(g.over)
}

// Words says in a sentence why a session ends for want of its right.
func (r Reason) Words() string {
	if r == KeyRemoved {
		return "its right has ended: the key of its token was removed"
	}
	return "its right has ended: its token has expired"
}
