package rights

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/event"
)

const (
	maxTicketFile    = 4 << 10 // bytes
	maxTicketSecrets = 4
	maxRight         = 1 << 10 // bytes of text
	ticketFeature    = "tickets/"
	featureLength    = 16 // characters: 96 bits, too many to guess
)

// ErrNoTickets means that a node has no secret to sign rights in tickets with.
var ErrNoTickets = errors.New("no secret for tickets")

// A right is the statement of one node to another about a client that it has
// checked. It is bound to the ticket, which names stream, purpose and both
// nodes, and which is valid for seconds and once.
type right struct {
	Expires  int64  `json:"exp,omitempty"` // Unix seconds, rounded up; 0: never
	Slack    int64  `json:"skw,omitempty"` // seconds
	Key      string `json:"key,omitempty"` // thumbprint
	Subject  string `json:"sub,omitempty"`
	TokenID  string `json:"jti,omitempty"`
	Who      string `json:"who,omitempty"`
	Sessions int    `json:"max,omitempty"`
}

// A ticketFile holds the secrets that the operator's nodes share. The first one
// signs, and each one verifies.
type ticketFile struct {
	file
	secrets atomic.Pointer[[][]byte]
}

func newTicketFile(path string, tell func(event.Event)) (*ticketFile, error) {
	t := &ticketFile{file: file{path: path, most: maxTicketFile, event: tell}}
	t.take = func(b []byte) (string, error) {
		secrets, err := parseTicketSecrets(b)
		if err != nil {
			return "", err
		}
		t.secrets.Store(&secrets)
		words := fmt.Sprintf("%d secrets for tickets are in force", len(secrets))
		if len(secrets) == 1 {
			words = "the secret for tickets is in force"
		}
		if t.open() {
			words += "; " + readable
		}
		return words, nil
	}
	return t, t.first()
}

// parseTicketSecrets parses one secret a line; lines that begin with # are
// comments.
func parseTicketSecrets(b []byte) ([][]byte, error) {
	if len(b) > maxTicketFile {
		return nil, fmt.Errorf("more than %d bytes", maxTicketFile)
	}
	var all [][]byte
	number := 0
	for line := range strings.Lines(string(b)) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if len(line) < minSecret {
			return nil, secretsError(fmt.Sprintf("line %d: %d characters, and a secret has at least %d", number, len(line), minSecret))
		}
		all = append(all, []byte(line))
	}
	if len(all) == 0 || len(all) > maxTicketSecrets {
		return nil, secretsError(fmt.Sprintf("%d secrets: want 1 to %d, one a line", len(all), maxTicketSecrets))
	}
	return all, nil
}

// mac returns the HMAC-SHA256 of parts, each preceded by its length, as text.
func mac(secret []byte, parts ...string) string {
	h := hmac.New(sha256.New, secret)
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// right is the secret that stands for an identity in claims to names.
func (t *ticketFile) right(identity string) []byte {
	return []byte(mac((*t.secrets.Load())[0], "name", identity))
}

// Transferable reports whether clients can be redirected to other nodes with their
// right.
func (r *Rights) Transferable() bool { return r == nil || r.tickets != nil }

// Features returns the features by which the record of this node, self, shows
// other nodes with the same secret that it knows the secret. A node without the
// secret can neither make them nor copy them into its own record.
func (r *Rights) Features(self peer.ID) []string {
	if r == nil || r.tickets == nil {
		return nil
	}
	var list []string
	for _, s := range *r.tickets.secrets.Load() {
		list = append(list, featureOf(s, self))
	}
	return list
}

func featureOf(secret []byte, node peer.ID) string {
	return ticketFeature + mac(secret, "weir-ticket-feature/1", string(node))[:featureLength]
}

// SharesSecret reports whether node, whose signed record has these features, knows
// the secret by which this node signs rights. A node without access control
// trusts every node.
func (r *Rights) SharesSecret(node peer.ID, features []string) bool {
	if r == nil || r.tickets == nil {
		return r == nil
	}
	return slices.Contains(features, featureOf((*r.tickets.secrets.Load())[0], node))
}

const rightDomain = "weir-right/1"

// AttachRight adds the right of g to a ticket. A node without access control
// returns the ticket unchanged. The error is ErrNoTickets without a secret.
func (r *Rights) AttachRight(ticket string, g *Grant) (string, error) {
	if r == nil || g == nil {
		return ticket, nil
	}
	if r.tickets == nil {
		return "", ErrNoTickets
	}
	said := right{Slack: int64(g.slack / time.Second), Key: g.print, Subject: g.Subject, TokenID: g.TokenID, Who: g.identity, Sessions: g.sessions}
	if !g.Expires.IsZero() {
		said.Expires = g.Expires.Add(time.Second - 1).Unix()
	}
	b, err := json.Marshal(said)
	if err != nil {
		return "", err
	}
	body := base64.RawURLEncoding.EncodeToString(b)
	carried := body + "." + mac((*r.tickets.secrets.Load())[0], rightDomain, ticket, body)
	if len(carried) > maxRight {
		return "", fmt.Errorf("a right of more than %d bytes", maxRight)
	}
	return ticket + "." + carried, nil
}

// SplitTicket splits a client's ticket parameter into the ticket and the right
// that another node of the operator added.
func SplitTicket(shown string) (ticket, right string) {
	ticket, right, _ = strings.Cut(shown, ".")
	return ticket, right
}

// GrantOf returns the grant of a client that another node redirected here with
// the right carried added to ticket, which the caller has opened. The error is
// a [*Refusal] if no secret of this node verifies it: anybody can make a
// ticket. On a node without access control, the grant is nil.
func (r *Rights) GrantOf(ticket, carried string) (*Grant, error) {
	if r == nil {
		return nil, nil
	}
	g, refused := r.redirected(ticket, carried)
	if refused == nil {
		refused = r.enter(g)
	}
	outcome := "allowed"
	if refused != nil {
		outcome = "refused"
	}
	r.mu.Lock()
	r.counts.checks[check{"ticket", outcome}]++
	r.mu.Unlock()
	if refused != nil {
		return nil, refused
	}
	return g, nil
}

func (r *Rights) redirected(ticket, carried string) (*Grant, *Refusal) {
	const untrusted = "the node that sent you is not one of this node's operator, or does not share its secret for tickets: %s"
	if r.tickets == nil {
		return nil, refuse(BadTicket, untrusted, "this node has none")
	}
	body, sum, ok := strings.Cut(carried, ".")
	if !ok || len(carried) > maxRight {
		return nil, refuse(BadTicket, untrusted, "the ticket says nothing of a right")
	}
	vouched := false
	for _, s := range *r.tickets.secrets.Load() {
		if subtle.ConstantTimeCompare([]byte(mac(s, rightDomain, ticket, body)), []byte(sum)) == 1 {
			vouched = true
		}
	}
	if !vouched {
		return nil, refuse(BadTicket, untrusted, "the right in the ticket is not vouched for")
	}
	var said right
	b, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil || json.Unmarshal(b, &said) != nil {
		return nil, refuse(BadTicket, untrusted, "the right in the ticket cannot be read")
	}
	g := r.newGrant()
	g.Subject, g.TokenID, g.print, g.identity, g.sessions = said.Subject, said.TokenID, said.Key, said.Who, said.Sessions
	g.slack = time.Duration(min(said.Slack, int64(Skew/time.Second))) * time.Second
	if said.Expires > 0 {
		g.Expires = time.Unix(said.Expires, 0)
		if !time.Now().Before(g.Expires.Add(g.slack)) {
			return nil, refuse(Expired, "the token that you came with has expired")
		}
	}
	if g.print != "" && (r.keys != nil || r.jwks != nil) && !r.has(g.print) {
		return nil, refuse(UnknownKey, "the token that you came with is signed by a key that is not in force here")
	}
	return g, nil
}
