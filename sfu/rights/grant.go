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
	identity string        // identity by which its sessions are counted; "": not counted
	sessions int           // limit of those; 0: none
	once     string        // key in spent of a one-time token; "": reusable
	done     chan struct{} // closed when it has ended

	// Rights.mu guards the following fields.
	entered bool
	used    bool   // a session was set up by it
	reason  Reason // set before done is closed
}

func (r *Rights) newGrant() *Grant { return &Grant{rights: r, done: make(chan struct{})} }

// take sets the grant from a token.
func (g *Grant) take(t Token, key *Key, raw string) {
	g.Subject, g.TokenID, g.Expires, g.slack, g.sessions = t.Subject, t.ID, t.Expires, Skew, t.Sessions
	g.print = key.print
	switch {
	case t.Subject != "":
		g.identity = "sub " + t.Subject
	case t.ID != "":
		g.identity = "jti " + key.print + " " + t.ID
	default:
		g.identity = "raw " + digest(raw)
	}
	if t.Once {
		g.once = key.print + " " + t.ID
	}
}

// Right returns a secret that stands for the identity of the grant's token: two
// tokens of one subject have the same. It is empty if there is none, or no secret
// of tickets to make it by, without which anybody could.
func (g *Grant) Right() []byte {
	if g == nil || g.identity == "" || g.rights.tickets == nil {
		return nil
	}
	return g.rights.tickets.right(g.identity)
}

// Same reports whether both grants are of one identity.
func (g *Grant) Same(other *Grant) bool {
	return g != nil && other != nil && g.identity != "" && g.identity == other.identity
}

// Done is closed when the right has ended.
func (g *Grant) Done() <-chan struct{} {
	if g == nil {
		return nil
	}
	return g.done
}

// Reason returns why the right has ended, once Done is closed.
func (g *Grant) Reason() Reason {
	g.rights.mu.Lock()
	defer g.rights.mu.Unlock()
	return g.reason
}

// MarkUsed records that a session was set up by the grant, here or at another
// node: a one-time token is used up then.
func (g *Grant) MarkUsed() {
	if g == nil {
		return
	}
	g.rights.mu.Lock()
	defer g.rights.mu.Unlock()
	g.used = true
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
	if g.identity != "" {
		if r.using[g.identity]--; r.using[g.identity] == 0 {
			delete(r.using, g.identity)
		}
	}
	if s, known := r.spent[g.once]; known && !g.used {
		s.free = true
		r.spent[g.once] = s
	}
}

func (g *Grant) end(why Reason) {
	r := g.rights
	r.mu.Lock()
	defer r.mu.Unlock()
	if g.reason != "" || !g.entered {
		return
	}
	g.reason = why
	if g.used {
		r.counts.ended[why]++
	}
	close(g.done)
}

// Words returns a sentence for people: why a session ends with its right.
func (r Reason) Words() string {
	if r == KeyRemoved {
		return "its right has ended: the key of its token was removed"
	}
	return "its right has ended: its token has expired"
}
