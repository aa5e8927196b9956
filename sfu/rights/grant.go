package rights

import (
	"time"
)

// A Grant is the permission of one client. Its methods may be called on nil,
// which is the grant of a node without access control: it never ends.
type Grant struct {
	Subject string    // subject of the token; "": unknown
	TokenID string    //
	Expires time.Time // zero: never

	rights   *Rights
	slack    time.Duration // tolerance for Expires, which may come from another clock
	print    string        // thumbprint of the key; "": none
	who      string        // identity by which its sessions are counted; "": not counted
	sessions int           // limit of those; 0: none
	once     string        // key in spent of a one-time token; "": reusable
	over     chan struct{} // closed when it has ended

	// Rights.mu guards the following fields.
	entered bool
	kept    bool   // a session was set up by it
	why     Reason // set before over is closed
}

func (r *Rights) newGrant() *Grant { return &Grant{rights: r, over: make(chan struct{})} }

// take sets the grant from a token.
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

// Why returns why the right has ended, once Over is closed.
func (g *Grant) Why() Reason {
	g.rights.mu.Lock()
	defer g.rights.mu.Unlock()
	return g.why
}

// Keep records that a session was set up by the grant, here or at another node:
// a one-time token is used up then.
func (g *Grant) Keep() {
	if g == nil {
		return
	}
	g.rights.mu.Lock()
	defer g.rights.mu.Unlock()
	g.kept = true
}

// Close releases the grant. It may be called more than once.
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

// Words returns a sentence for people: why a session ends with its right.
func (r Reason) Words() string {
	if r == KeyRemoved {
		return "its right has ended: the key of its token was removed"
	}
	return "its right has ended: its token has expired"
}
