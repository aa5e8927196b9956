package rights

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"weir/capacity"
)

const (
	// MaxToken bounds a token, in bytes.
	MaxToken = 8 << 10
	// Skew is by how much the clock of a token's issuer may differ from ours.
	Skew = 30 * time.Second
	// MaxOnce bounds the lifetime of a one-time token: its use is remembered
	// for as long.
	MaxOnce = 24 * time.Hour

	maxSubject  = 128 // bytes
	maxTokenID  = 64  // bytes
	maxSessions = 1_000_000
	maxSeconds  = 253_402_300_799 // the end of the year 9999
)

// An Action is publishing or viewing a stream.
type Action string

// Values of Action.
const (
	Publish Action = "publish"
	View    Action = "view"
)

// A Token is the content of a JWT for weir. Network, Rights, Streams and
// Expires are required.
type Token struct {
	Network   []string  // aud: the networks in which it is valid
	Subject   string    // sub: the identity, for people and for Sessions
	ID        string    // jti
	Issuer    string    // iss, for people
	Expires   time.Time // exp
	NotBefore time.Time // nbf; zero: at once
	Issued    time.Time // iat, for people
	Rights    []Action
	Streams   []string // see ValidPattern
	Once      bool     // it admits one session at each node; needs ID, and a lifetime of at most MaxOnce
	Sessions  int      // limit of concurrent sessions at each node, of Subject or else of ID; 0: none

	Algorithm string // of the signature
	KeyID     string // kid of the signing key; "": none
}

// claims are a token's claims in a JWT.
type claims struct {
	jwt.RegisteredClaims
	Expires   *seconds    `json:"exp,omitempty"` // instead of the embedded ones, which accept any number
	NotBefore *seconds    `json:"nbf,omitempty"`
	Issued    *seconds    `json:"iat,omitempty"`
	Weir      *weirClaims `json:"weir,omitempty"`
}

type weirClaims struct {
	Rights   []Action `json:"rights"`
	Streams  []string `json:"streams"`
	Once     bool     `json:"once,omitempty"`
	Sessions int      `json:"sessions,omitempty"`
}

// UnmarshalJSON rejects unknown members: one may be a limit.
func (w *weirClaims) UnmarshalJSON(b []byte) error {
	type plain weirClaims
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode((*plain)(w))
}

// seconds is a NumericDate (RFC 7519, section 2).
type seconds time.Time

// UnmarshalJSON implements [json.Unmarshaler].
func (s *seconds) UnmarshalJSON(b []byte) error {
	var f float64
	if err := json.Unmarshal(b, &f); err != nil {
		return errors.New("a time that is no number of seconds")
	}
	if !(f >= 0 && f <= maxSeconds) {
		return errors.New("a time that is not within the years 1970 to 9999")
	}
	*s = seconds(time.UnixMilli(int64(f * 1000)).UTC())
	return nil
}

// MarshalJSON implements [json.Marshaler].
func (s seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Time(s).Unix()) }

func (s *seconds) time() time.Time {
	if s == nil {
		return time.Time{}
	}
	return time.Time(*s)
}

// A header is the part of a JWT's header that describes its signature.
type header struct{ alg, kid string }

// parser makes a parser that accepts only the algorithm alg and checks no
// claims: each of these checks has its own reason, and is made in this package.
func parser(alg string) *jwt.Parser {
	return jwt.NewParser(jwt.WithValidMethods([]string{alg}), jwt.WithoutClaimsValidation(), jwt.WithStrictDecoding())
}

// headerOf parses the header of raw, and refuses an algorithm that weir does
// not accept, whatever keys there are.
func headerOf(raw string) (header, *Refusal) {
	if len(raw) > MaxToken {
		return header{}, refuse(TooLarge, "the token has more than %d bytes", MaxToken)
	}
	first, _, _ := strings.Cut(raw, ".")
	if strings.Count(raw, ".") != 2 {
		return header{}, refuse(Malformed, "the token is no JWT: it does not have three parts with dots between them")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(first)
	if err != nil {
		return header{}, refuse(Malformed, "the token is no JWT: its header is not base64url")
	}
	var members map[string]any
	if json.Unmarshal(b, &members) != nil || members == nil {
		return header{}, refuse(Malformed, "the token is no JWT: its header is no JSON object")
	}
	alg, ok := members["alg"].(string)
	switch {
	case !ok || alg == "" || strings.EqualFold(alg, "none"):
		return header{}, refuse(NoAlgorithm, "the token is not signed (alg none): ask for one that is")
	case alg != EdDSA && alg != HS256:
		return header{}, refuse(WrongAlgorithm, "the token is signed with %s: taken are %s, and %s with a secret from a file", word(alg), EdDSA, HS256)
	}
	if _, critical := members["crit"]; critical { // RFC 7515, section 4.1.11
		return header{}, refuse(Malformed, "the token's header has crit, and nothing that it could name is known here")
	}
	kid := ""
	if v, given := members["kid"]; given {
		if kid, ok = v.(string); !ok || len(kid) > maxKeyID {
			return header{}, refuse(UnknownKey, "the token's kid is no text of up to %d bytes", maxKeyID)
		}
	}
	return header{alg, kid}, nil
}

// word quotes a client's value for use in a message to it.
func word(s string) string { return fmt.Sprintf("%q", capacity.Printable(s, 32)) }

// verify returns the token in raw if key has signed it.
func verify(raw string, h header, key *Key) (Token, *Refusal) {
	if key.Algorithm != h.alg {
		return Token{}, refuse(WrongAlgorithm, "the token is signed with %s, and its key is for %s: one is never taken for the other", h.alg, key.Algorithm)
	}
	var c claims
	_, err := parser(key.Algorithm).ParseWithClaims(raw, &c, func(*jwt.Token) (any, error) { return key.verifier(), nil })
	switch {
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return Token{}, refuse(BadSignature, "the token was not signed by the key that it names, or was changed since")
	case err != nil:
		return Token{}, refuse(Malformed, "the token is no JWT of weir's: %s", malformation(err))
	}
	t, err := c.token()
	if err != nil {
		return Token{}, refuse(Malformed, "the token is signed, but says nothing that can be used: %v", err)
	}
	t.Algorithm, t.KeyID = h.alg, h.kid
	return t, nil
}

// malformation returns err without the parts of the content that the library
// adds.
func malformation(err error) string {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return "its claims are not JSON"
	case errors.As(err, &kind) && kind.Field != "":
		return fmt.Sprintf("its claim %s has the wrong type", word(kind.Field))
	}
	return "its claims or its signature cannot be read"
}

// token checks that the claims have all that a token requires, and nothing out
// of bounds.
func (c *claims) token() (Token, error) {
	t := Token{
		Network: c.Audience, Subject: c.Subject, ID: c.ID, Issuer: c.Issuer,
		Expires: c.Expires.time(), NotBefore: c.NotBefore.time(), Issued: c.Issued.time(),
	}
	if c.Weir == nil {
		return t, errors.New("it has no claim weir with rights and streams")
	}
	t.Rights, t.Streams, t.Once, t.Sessions = c.Weir.Rights, c.Weir.Streams, c.Weir.Once, c.Weir.Sessions
	return t, t.check()
}

func (t *Token) check() error {
	switch {
	case len(t.Network) == 0 || len(t.Network) > maxPatterns:
		return fmt.Errorf("aud names %d networks, want 1 to %d", len(t.Network), maxPatterns)
	case t.Expires.IsZero():
		return errors.New("it has no exp: one that is good for ever is not taken")
	case len(t.Subject) > maxSubject || len(t.ID) > maxTokenID:
		return fmt.Errorf("sub has more than %d bytes, or jti more than %d", maxSubject, maxTokenID)
	case len(t.Rights) == 0 || slices.ContainsFunc(t.Rights, func(a Action) bool { return a != Publish && a != View }):
		return fmt.Errorf("its rights are none of %s and %s", Publish, View)
	case len(t.Streams) == 0 || len(t.Streams) > maxPatterns:
		return fmt.Errorf("it names %d streams, want 1 to %d", len(t.Streams), maxPatterns)
	case t.Once && t.ID == "":
		return errors.New("it is good once, and has no jti to be remembered by")
	case t.Sessions < 0 || t.Sessions > maxSessions:
		return fmt.Errorf("its sessions are not within 0 to %d", maxSessions)
	}
	for _, p := range t.Streams {
		if err := ValidPattern(p); err != nil {
			return err
		}
	}
	return nil
}

// allows checks the token against a request.
func (t *Token) allows(network string, r Request, now time.Time) *Refusal {
	switch {
	case !now.Before(t.Expires.Add(Skew)):
		return refuse(Expired, "the token has expired, at %s: ask for a new one", t.Expires.Format(time.RFC3339))
	case now.Before(t.NotBefore.Add(-Skew)):
		return refuse(NotYet, "the token is not good before %s (it is %s here)", t.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case !slices.Contains(t.Network, network):
		return refuse(OtherNetwork, "the token is for another network than this one, %q", network)
	case t.Once && t.Expires.Sub(now) > MaxOnce+Skew:
		return refuse(Malformed, "the token is good once and for longer than %v: it would have to be remembered for that long", MaxOnce)
	case !matches(t.Streams, r.Stream):
		return refuse(OtherStream, "the token is not for stream %q", r.Stream)
	case !slices.Contains(t.Rights, r.Action):
		return refuse(OtherRight, "the token does not allow to %s stream %q", r.Action, r.Stream)
	}
	return nil
}

// Sign makes a JWT of t with key. It sets Algorithm and KeyID from the key.
func Sign(t Token, key *PrivateKey) (string, error) {
	if err := t.check(); err != nil {
		return "", err
	}
	c := claims{RegisteredClaims: jwt.RegisteredClaims{Audience: t.Network, Subject: t.Subject, ID: t.ID, Issuer: t.Issuer},
		Weir: &weirClaims{Rights: t.Rights, Streams: t.Streams, Once: t.Once, Sessions: t.Sessions}}
	for _, m := range []struct {
		at time.Time
		in **seconds
	}{{t.Expires, &c.Expires}, {t.NotBefore, &c.NotBefore}, {t.Issued, &c.Issued}} {
		if !m.at.IsZero() {
			s := seconds(m.at)
			*m.in = &s
		}
	}
	unsigned := jwt.NewWithClaims(jwt.GetSigningMethod(key.public.Algorithm), c)
	unsigned.Header["kid"] = key.public.ID
	signed, err := unsigned.SignedString(key.signer)
	if err == nil && len(signed) > MaxToken {
		err = fmt.Errorf("a token of more than %d bytes", MaxToken)
	}
	return signed, err
}

// Inspect returns the content of raw without verification: no key is needed.
func Inspect(raw string) (Token, error) {
	h, refused := headerOf(raw)
	if refused != nil {
		return Token{}, refused
	}
	var c claims
	if _, _, err := parser(h.alg).ParseUnverified(raw, &c); err != nil {
		return Token{}, refuse(Malformed, "the token is no JWT of weir's: %s", malformation(err))
	}
	t, err := c.token()
	if err != nil {
		return Token{}, refuse(Malformed, "the token says nothing that can be used: %v", err)
	}
	t.Algorithm, t.KeyID = h.alg, h.kid
	return t, nil
}

// digest returns an identity for a token with neither subject nor ID.
func digest(raw string) string {
	sum := sha256.Sum256([]byte(raw))
	return base64.RawURLEncoding.EncodeToString(sum[:12])
}
