package rights

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	secretA = "secret-of-the-operator-which-is-long-enough"
	secretB = "another-secret-of-the-operator-for-later-on"
)

func sharing(t testing.TB, secrets string, keys ...*PrivateKey) *Rights {
	return with(t, Config{Tickets: write(t, filepath.Join(t.TempDir(), "tickets"), secrets)}, keys...)
}

// A right is valid, with its bounds, at a node that shares the secret, and
// nowhere else. Without the secret, no node can make one, change one, or bind
// one to another ticket.
func TestRightsTravel(t *testing.T) {
	k, other := newKey(t, "k1"), newKey(t, "k2")
	from, to := sharing(t, secretA, k), sharing(t, secretA, k)
	g, err := from.Check(t.Context(), view(sign(t, k, func(t *Token) { t.Subject, t.Sessions = "alice", 1 })))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	const ticket = "CkUKFGFiY2RlZg_-"
	shown, err := from.AttachRight(ticket, g)
	if err != nil {
		t.Fatal(err)
	}
	bare, carried := SplitTicket(shown)
	if bare != ticket {
		t.Fatalf("the ticket is %s", bare)
	}
	there, err := to.GrantOf(bare, carried)
	if err != nil {
		t.Fatal(err)
	}
	if d := there.Expires.Sub(g.Expires); there.Subject != "alice" || there.sessions != 1 || there.print != g.print || there.slack != Skew || d < 0 || d > time.Second {
		t.Errorf("it arrived as %+v, and left as %+v", there, g)
	}
	if _, err := to.GrantOf(bare, carried); reasonOf(err) != TooMany {
		t.Errorf("a second session of one: %v", err)
	}
	there.Close()

	body, sum, _ := strings.Cut(carried, ".")
	said, _ := base64.RawURLEncoding.DecodeString(body)
	more := base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(said), `"max":1`, `"max":9`, 1)))
	for name, c := range map[string]struct {
		at              *Rights
		ticket, carried string
		want            Reason
	}{
		"no right":                {to, ticket, "", BadTicket},
		"a right without a sum":   {to, ticket, body, BadTicket},
		"a right that grew":       {to, ticket, more + "." + sum, BadTicket},
		"another ticket":          {to, ticket + "A", carried, BadTicket},
		"another secret":          {sharing(t, secretB, k), ticket, carried, BadTicket},
		"a stranger's sum":        {to, ticket, body + "." + mac([]byte(secretB), rightDomain, ticket, body), BadTicket},
		"a sum of something else": {to, ticket, body + "." + mac([]byte(secretA), ticket, body), BadTicket},
		"a node without secret":   {with(t, Config{}, k), ticket, carried, BadTicket},
		"a book":                  {to, ticket, strings.Repeat("a", 5000) + "." + sum, BadTicket},
		"a node without the key":  {sharing(t, secretA, other), ticket, carried, UnknownKey},
	} {
		if _, err := c.at.GrantOf(c.ticket, c.carried); reasonOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
	// A node that only accepts redirected clients has no keys.
	if g, err := sharing(t, secretB+"\n# for now\n"+secretA).GrantOf(bare, carried); err != nil {
		t.Errorf("while the secret is being changed: %v", err)
	} else {
		g.Close()
	}
	if _, err := with(t, Config{}, k).AttachRight(ticket, g); err == nil {
		t.Error("a node without secret makes rights")
	}
	b, _ := json.Marshal(right{Expires: time.Now().Add(-time.Minute).Unix()})
	old := base64.RawURLEncoding.EncodeToString(b)
	if _, err := to.GrantOf(ticket, old+"."+mac([]byte(secretA), rightDomain, ticket, old)); reasonOf(err) != Expired {
		t.Errorf("a right that has ended: %v", err)
	}
	// Nodes without access control accept tickets unchanged.
	var open *Rights
	if g, err := open.GrantOf(ticket, carried); g != nil || err != nil {
		t.Errorf("at an open node: %v, %v", g, err)
	}
	if same, err := open.AttachRight(ticket, nil); same != ticket || err != nil || !open.Transferable() {
		t.Errorf("from an open node: %s, %v", same, err)
	}
}

// Only a node's own record proves that it shares the secret.
func TestWhoSharesTheSecret(t *testing.T) {
	a, b, stranger := sharing(t, secretA), sharing(t, secretB+"\n"+secretA), sharing(t, secretB)
	if !a.SharesSecret("b", b.Features("b")) {
		t.Error("a node that shares the secret is not known")
	}
	if a.SharesSecret("s", stranger.Features("s")) || a.SharesSecret("s", b.Features("b")) || a.SharesSecret("s", nil) {
		t.Error("a stranger is taken for one that shares the secret")
	}
	for _, f := range append(b.Features("b"), a.Features("a")...) {
		if len(f) > 32 {
			t.Errorf("%s is longer than a record takes", f)
		}
	}
}

func TestTicketFilesThatAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing": "", "only words": "# nothing\n", "a password": "hunter2\n", "five": strings.Repeat(secretA+"\n", 5), "a book": strings.Repeat("a", maxTicketFile+1),
	} {
		if _, err := parseTicketSecrets([]byte(text)); err == nil {
			t.Errorf("%s is taken", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the secret is in %q", name, err)
		}
	}
}

func FuzzRight(f *testing.F) {
	k := newKey(f, "k1")
	r := sharing(f, secretA, k)
	g, err := r.Check(f.Context(), view(sign(f, k, nil)))
	if err != nil {
		f.Fatal(err)
	}
	shown, err := r.AttachRight("ticket", g)
	g.Close()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(shown)
	f.Add("ticket")
	f.Add("ticket.e30." + mac([]byte(secretA), rightDomain, "ticket", "e30"))
	f.Add("ticket.e30.")
	f.Fuzz(func(t *testing.T, shown string) {
		ticket, carried := SplitTicket(shown)
		g, err := r.GrantOf(ticket, carried)
		if err != nil {
			return
		}
		g.Close()
		body, sum, _ := strings.Cut(carried, ".")
		if sum != mac([]byte(secretA), rightDomain, ticket, body) {
			t.Errorf("%q is believed", shown)
		}
	})
}

// Whoever shares the secret makes the same right of a token's identity, and
// nobody else makes one.
func TestRightOfAName(t *testing.T) {
	k := newKey(t, "k1")
	grant := func(r *Rights, subject string) *Grant {
		g, err := r.Check(t.Context(), view(sign(t, k, func(t *Token) { t.Subject = subject })))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		return g
	}
	alice := grant(sharing(t, secretA, k), "alice")
	for name, c := range map[string]struct {
		other *Grant
		right bool // the same, for other nodes
		same  bool // for this node
	}{
		"at another node":     {grant(sharing(t, secretA, k), "alice"), true, true},
		"of somebody else":    {grant(sharing(t, secretA, k), "bob"), false, false},
		"by another secret":   {grant(sharing(t, secretB, k), "alice"), false, true},
		"without a secret":    {grant(with(t, Config{}, k), "alice"), false, true},
		"without any control": {nil, false, false},
	} {
		if got := bytes.Equal(c.other.Right(), alice.Right()); got != c.right {
			t.Errorf("%s: the same right %t", name, got)
		}
		if got := c.other.Same(alice); got != c.same {
			t.Errorf("%s: the same identity %t", name, got)
		}
	}
}
