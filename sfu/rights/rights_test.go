package rights

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"weir/capacity/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t testing.TB, id string) *PrivateKey {
	t.Helper()
	k, err := NewKey(id)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// setOf makes the JWK set of keys.
func setOf(keys ...*PrivateKey) string {
	var all []string
	for _, k := range keys {
		s := strings.TrimSpace(string(k.Public()))
		s = s[strings.Index(s, "[")+1 : strings.LastIndex(s, "]")]
		all = append(all, s)
	}
	return `{"keys":[` + strings.Join(all, ",") + `]}`
}

func write(t testing.TB, path, content string) string {
	t.Helper()
	// Renamed into place, as operators' tools do: no reader sees half of it.
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// with returns rights by cfg, in network "net", with a file of keys.
func with(t testing.TB, cfg Config, keys ...*PrivateKey) *Rights {
	t.Helper()
	cfg.Network = "net"
	if len(keys) > 0 {
		cfg.Keys = write(t, filepath.Join(t.TempDir(), "keys.json"), setOf(keys...))
	}
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// good is a token that allows viewing and publishing demo.
func good() Token {
	return Token{Network: []string{"net"}, ID: "one", Expires: time.Now().Add(time.Minute), Rights: []Action{View, Publish}, Streams: []string{"demo"}}
}

func sign(t testing.TB, k *PrivateKey, change func(*Token)) string {
	t.Helper()
	token := good()
	if change != nil {
		change(&token)
	}
	s, err := Sign(token, k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// forge makes a token of any header and claims, signed by f.
func forge(header, claims string, f func(text []byte) []byte) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(f([]byte(text)))
}

func claimsOf(token string) string {
	b, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	return string(b)
}

func reasonOf(err error) Reason {
	var r *Refusal
	if errors.As(err, &r) {
		return r.Reason
	}
	return ""
}

func view(token string) Request {
	return Request{Action: View, Stream: "demo", Client: "192.0.2.1:5000", Token: token}
}

// Each defect of a token has its own reason, and no text of a refusal contains
// a part of the token.
func TestTokensThatLetNobodyIn(t *testing.T) {
	k, other := newKey(t, "k1"), newKey(t, "k2")
	secret, err := NewSecret("s1")
	if err != nil {
		t.Fatal(err)
	}
	r := with(t, Config{}, k, secret)
	byKey := func(text []byte) []byte { return ed25519.Sign(k.signer.(ed25519.PrivateKey), text) }
	byPublic := func(text []byte) []byte {
		h := hmac.New(sha256.New, k.public.public)
		h.Write(text)
		return h.Sum(nil)
	}
	nothing := func([]byte) []byte { return nil }
	fine := claimsOf(sign(t, k, nil))
	with := func(old, new string) string { return strings.Replace(fine, old, new, 1) }
	const head = `{"alg":"EdDSA","kid":"k1"}`
	changed := sign(t, k, nil)
	parts := strings.Split(changed, ".")
	parts[1] = strings.Split(sign(t, k, func(t *Token) { t.Streams = []string{"*"} }), ".")[1]

	for _, c := range []struct {
		name, token string
		want        Reason
	}{
		{"none at all", "", NoToken},
		{"a word", "letmein", Malformed},
		{"four parts", sign(t, k, nil) + ".x", Malformed},
		{"a thousand dots", strings.Repeat(".", 1000), Malformed},
		{"a header that is no base64", "?.e30.x", Malformed},
		{"a header that is a list", forge(`[]`, fine, byKey), Malformed},
		{"a header that is null", forge(`null`, fine, byKey), Malformed},
		{"more than may be", forge(head, `{"x":"`+strings.Repeat("x", MaxToken)+`"}`, byKey), TooLarge},
		{"no signature", forge(`{"alg":"none","kid":"k1"}`, fine, nothing), NoAlgorithm},
		{"no signature, shouted", forge(`{"alg":"NONE","kid":"k1"}`, fine, nothing), NoAlgorithm},
		{"no algorithm", forge(`{"kid":"k1"}`, fine, byKey), NoAlgorithm},
		{"an algorithm that is a number", forge(`{"alg":1,"kid":"k1"}`, fine, byKey), NoAlgorithm},
		{"RSA", forge(`{"alg":"RS256","kid":"k1"}`, fine, byKey), WrongAlgorithm},
		{"HS256 with the public key for a secret", forge(`{"alg":"HS256","kid":"k1"}`, fine, byPublic), WrongAlgorithm},
		{"EdDSA for the secret", forge(`{"alg":"EdDSA","kid":"s1"}`, fine, byKey), WrongAlgorithm},
		{"an algorithm of another case", forge(`{"alg":"eddsa","kid":"k1"}`, fine, byKey), WrongAlgorithm},
		{"two algorithms", forge(`{"alg":"EdDSA","ALG":"none","alg":"HS256","kid":"k1"}`, fine, byPublic), WrongAlgorithm},
		{"a key of its own in the header", forge(`{"alg":"EdDSA","jwk":{"kty":"OKP"},"jku":"http://127.0.0.1/","kid":"k9"}`, fine, byKey), UnknownKey},
		{"an extension that is critical", forge(`{"alg":"EdDSA","kid":"k1","crit":["b64"],"b64":false}`, fine, byKey), Malformed},
		{"another's key", sign(t, other, nil), UnknownKey},
		{"no kid, of two keys", forge(`{"alg":"EdDSA"}`, fine, byKey), UnknownKey},
		{"a kid that is a number", forge(`{"alg":"EdDSA","kid":1}`, fine, byKey), UnknownKey},
		{"a kid that is a path", forge(`{"alg":"EdDSA","kid":"../../dev/null"}`, fine, byKey), UnknownKey},
		{"another's signature under a known kid", forge(head, fine, func(text []byte) []byte { return ed25519.Sign(other.signer.(ed25519.PrivateKey), text) }), BadSignature},
		{"claims that were changed", strings.Join(parts, "."), BadSignature},
		{"half a signature", changed[:len(changed)-22], BadSignature},
		{"claims that are no JSON", forge(head, `{`, byKey), Malformed},
		{"no claims of weir's", forge(head, `{"aud":"net","exp":9999999999}`, byKey), Malformed},
		{"no expiry", forge(head, with(`"exp"`, `"eks"`), byKey), Malformed},
		{"an expiry that is a text", forge(head, with(`"exp":`, `"exp":"soon","x":`), byKey), Malformed},
		{"an expiry past all years", forge(head, with(`"exp":`, `"exp":1e300,"x":`), byKey), Malformed},
		{"a time before which it is not good, past all years", forge(head, with(`"exp":`, `"nbf":1e300,"exp":`), byKey), Malformed},
		{"a limit that is not known here", forge(head, with(`"weir":{`, `"weir":{"hours":"9-17",`), byKey), Malformed},
		{"a star in the middle", forge(head, with(`"demo"`, `"d*mo"`), byKey), Malformed},
		{"a right that there is not", forge(head, with(`"view"`, `"own"`), byKey), Malformed},
		{"seventeen streams", forge(head, with(`"demo"`, `"demo"`+strings.Repeat(`,"a"`, 16)), byKey), Malformed},
		{"expired", sign(t, k, func(t *Token) { t.Expires = time.Now().Add(-Skew - time.Second) }), Expired},
		{"not yet good", sign(t, k, func(t *Token) { t.NotBefore = time.Now().Add(Skew + 5*time.Second) }), NotYet},
		{"of another network", sign(t, k, func(t *Token) { t.Network = []string{"other"} }), OtherNetwork},
		{"for another stream", sign(t, k, func(t *Token) { t.Streams = []string{"dem", "demo2", "demo/*"} }), OtherStream},
		{"to publish only", sign(t, k, func(t *Token) { t.Rights = []Action{Publish} }), OtherRight},
		{"once, and for too long", sign(t, k, func(t *Token) { t.Once, t.Expires = true, time.Now().Add(MaxOnce+time.Hour) }), Malformed},
	} {
		_, err := r.Check(t.Context(), view(c.token))
		if got := reasonOf(err); got != c.want {
			t.Errorf("%s: %v, %q; want %s", c.name, err, got, c.want)
			continue
		}
		for part := range strings.SplitSeq(c.token, ".") {
			if len(part) > 12 && strings.Contains(err.Error(), part) {
				t.Errorf("%s: the token is in %q", c.name, err)
			}
		}
	}
	// Clocks that differ a little do not matter.
	for name, token := range map[string]string{
		"just expired":            sign(t, k, func(t *Token) { t.Expires = time.Now().Add(-Skew / 2) }),
		"good in a moment":        sign(t, k, func(t *Token) { t.NotBefore = time.Now().Add(Skew / 2) }),
		"one prefix of several":   sign(t, k, func(t *Token) { t.Streams = []string{"live/*", "de*"} }),
		"every stream":            sign(t, k, func(t *Token) { t.Streams = []string{"*"} }),
		"one network of several":  sign(t, k, func(t *Token) { t.Network = []string{"other", "net"} }),
		"by the secret":           sign(t, secret, nil),
		"an audience that is one": forge(head, with(`["net"]`, `"net"`), byKey),
	} {
		g, err := r.Check(t.Context(), view(token))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		g.Close()
	}
	if s := r.Status(); s.Granted != 0 || s.Checks[[2]string{"token", "allowed"}] != 7 {
		t.Errorf("after all have left: %+v", s)
	}
}

func TestPatterns(t *testing.T) {
	for _, c := range []struct {
		pattern, stream string
		want            bool
	}{
		{"demo", "demo", true}, {"demo", "demo2", false}, {"demo", "Demo", false},
		{"live/*", "live/a", true}, {"live/*", "live/a/b", true}, {"live/*", "live", false}, {"live/*", "lively/a", false},
		{"cam-*", "cam-1", true}, {"cam-*", "cam-", false}, {"*", "a/b", true},
	} {
		if err := ValidPattern(c.pattern); err != nil {
			t.Error(err)
		}
		if got := matches([]string{c.pattern}, c.stream); got != c.want {
			t.Errorf("%s names %s: %t", c.pattern, c.stream, got)
		}
	}
	for _, p := range []string{"", "**", "a*b", "*a", "a/../b", "/a", "a b", "a/**", strings.Repeat("a", 4096) + "*", "ä*"} {
		if ValidPattern(p) == nil {
			t.Errorf("%q is taken", p)
		}
	}
}

// A one-time token admits one session, also for concurrent requests, and is
// free again if that session is not set up.
func TestOnce(t *testing.T) {
	k := newKey(t, "")
	r := with(t, Config{}, k)
	token := sign(t, k, func(t *Token) { t.Once = true })
	failed, err := r.Check(t.Context(), view(token))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Check(t.Context(), view(token)); reasonOf(err) != Used {
		t.Errorf("while another has it: %v", err)
	}
	failed.Close()
	var in sync.WaitGroup
	var mu sync.Mutex
	var let []*Grant
	for range 16 {
		in.Go(func() {
			if g, err := r.Check(context.Background(), view(token)); err == nil {
				g.MarkUsed()
				mu.Lock()
				let = append(let, g)
				mu.Unlock()
			} else if reasonOf(err) != Used {
				t.Error(err)
			}
		})
	}
	in.Wait()
	if len(let) != 1 {
		t.Fatalf("%d were let in by it", len(let))
	}
	let[0].Close()
	if _, err := r.Check(t.Context(), view(token)); reasonOf(err) != Used {
		t.Errorf("after its session: %v", err)
	}
}

// The number of remembered one-time tokens is bounded, and expired ones are
// forgotten.
func TestOnceIsForgotten(t *testing.T) {
	k := newKey(t, "")
	r := with(t, Config{}, k)
	for i := range maxSpent {
		r.spent[fmt.Sprint(i)] = spent{until: time.Now().Add(time.Minute)}
	}
	token := sign(t, k, func(t *Token) { t.Once = true })
	if _, err := r.Check(t.Context(), view(token)); reasonOf(err) != NoMemory {
		t.Errorf("with a full memory: %v", err)
	}
	r.look(time.Now().Add(time.Hour))
	if g, err := r.Check(t.Context(), view(token)); err != nil {
		t.Errorf("after all have expired: %v", err)
	} else {
		g.Close()
	}
}

// The concurrent sessions of a subject are bounded by its token, and by the
// node.
func TestSessionsOfOneToken(t *testing.T) {
	k := newKey(t, "")
	r := with(t, Config{Sessions: 3}, k)
	check := func(subject string, sessions int, id string) (*Grant, error) {
		return r.Check(t.Context(), view(sign(t, k, func(t *Token) { t.Subject, t.Sessions, t.ID = subject, sessions, id })))
	}
	var held []*Grant
	for i := range 2 {
		g, err := check("alice", 2, fmt.Sprint(i)) // tokens of one subject count together
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, g)
	}
	if _, err := check("alice", 2, "2"); reasonOf(err) != TooMany {
		t.Errorf("a third session: %v", err)
	}
	if g, err := check("bob", 2, "b"); err != nil {
		t.Errorf("somebody else: %v", err)
	} else {
		g.Close()
	}
	for range 3 {
		g, err := check("", 0, "own")
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, g)
	}
	if _, err := check("", 0, "own"); reasonOf(err) != TooMany {
		t.Errorf("beyond what the node allows: %v", err)
	}
	for _, g := range held {
		g.Close()
		g.Close()
	}
	if len(r.using) != 0 || len(r.grants) != 0 {
		t.Errorf("after all have left: %v, %d grants", r.using, len(r.grants))
	}
}

// A right ends when its token expires, and at most a second after its key is
// removed.
func TestRightsEnd(t *testing.T) {
	k, stays := newKey(t, "k1"), newKey(t, "k2")
	path := write(t, filepath.Join(t.TempDir(), "keys.json"), setOf(k, stays))
	var events []event.Event
	synctest.Test(t, func(t *testing.T) {
		r, err := New(Config{Network: "net", Keys: path, Event: func(e event.Event) { events = append(events, e) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan struct{})
		go func() { _ = r.Run(ctx); close(ran) }()
		grant := func(k *PrivateKey, ttl time.Duration) *Grant {
			g, err := r.Check(ctx, view(sign(t, k, func(t *Token) { t.Expires = time.Now().Add(ttl) })))
			if err != nil {
				t.Fatal(err)
			}
			g.MarkUsed()
			return g
		}
		short, long, other := grant(k, 20*time.Second), grant(k, time.Hour), grant(stays, time.Hour)
		began := time.Now()
		<-short.Done()
		if took := time.Since(began); took < 20*time.Second || took > 20*time.Second+Skew+2*lookEach || short.Reason() != Expired {
			t.Errorf("it ended after %v: %s", took, short.Reason())
		}
		// An invalid file ends no right.
		write(t, path, `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`)
		time.Sleep(3 * lookEach)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * lookEach)
		select {
		case <-long.Done():
			t.Error("a file that is not sound ended a right")
		default:
		}
		write(t, path, setOf(stays))
		gone := time.Now()
		<-long.Done()
		if took := time.Since(gone); took > 2*lookEach || long.Reason() != KeyRemoved {
			t.Errorf("it ended %v after its key was removed: %s", took, long.Reason())
		}
		select {
		case <-other.Done():
			t.Error("the right by a key that stays has ended")
		default:
		}
		if s := r.Status(); s.Ended[Expired] != 1 || s.Ended[KeyRemoved] != 1 || s.Sources[0].Keys != 1 || s.Sources[0].Failed != 2 {
			t.Errorf("%+v", s)
		}
		cancel()
		<-ran
	})
	var kinds []event.Kind
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	if got := fmt.Sprint(kinds); got != "[keys.applied keys.refused keys.refused keys.applied]" {
		t.Errorf("events were %s", got)
	}
}

func TestKeySetsThatAreRefused(t *testing.T) {
	k := newKey(t, "k1")
	private := string(k.Private())
	public := setOf(k)
	for _, c := range []struct{ name, text, says string }{
		{"no JSON", "keys", "no JWK set"},
		{"a list", "[]", "no JWK set"},
		{"another object", `{"issuer":"x"}`, "no JWK set"},
		{"a private key alone", private, "no JWK set"},
		{"a private key in a set", `{"keys":[` + private + `]}`, "private key"},
		{"the same kid twice", strings.Replace(public, "[", "["+public[strings.Index(public, "[")+1:strings.LastIndex(public, "]")]+",", 1), "another one with kid"},
		{"half a key", strings.Replace(public, `"x": "`, `"x": "AA`, 1), "x is not base64url of 32 bytes"},
		{"zeros for a key", `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"` + strings.Repeat("A", 43) + `"}]}`, "can be forged"},
		{"one for a key", `{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AQ` + strings.Repeat("A", 41) + `"}]}`, "can be forged"},
		{"an algorithm that does not fit", strings.Replace(public, "EdDSA", "RS256", 1), "not for Ed25519"},
		{"only keys of other kinds", `{"keys":[{"kty":"RSA","n":"x","e":"AQAB","kid":"r"}]}`, "no key that can be used"},
		{"a short secret", `{"keys":[{"kty":"oct","alg":"HS256","k":"c2VjcmV0"}]}`, "32 to 1024 bytes"},
		{"a secret for anything", `{"keys":[{"kty":"oct","k":"` + strings.Repeat("A", 64) + `"}]}`, "say so by alg"},
		{"65 keys", `{"keys":[` + strings.Repeat(`{},`, 64) + `{}]}`, "at most 64"},
		{"a number for a key", `{"keys":[7]}`, "no JWK"},
		{"too long", `{"keys":[` + strings.Repeat(" ", MaxKeySet) + `]}`, "more than"},
		{"a kid that steers a terminal", strings.Replace(public, `"k1"`, `"\u001b[2J"`, 1), "printable"},
	} {
		_, err := ParseKeys([]byte(c.text), true)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want a word of %q", c.name, err, c.says)
		}
	}
	secret, _ := NewSecret("s")
	if set, err := ParseKeys([]byte(setOf(k, secret)), false); err != nil || set.Len() != 1 || len(set.Skipped) != 1 {
		t.Errorf("a secret from elsewhere than a file: %+v, %v", set, err)
	}
	if set, err := ParseKeys([]byte(`{"keys":[]}`), true); err != nil || set.Len() != 0 {
		t.Errorf("a set without keys: %v", err)
	}
	// The output of weir token key can be parsed, and nothing else.
	if again, err := ParsePrivateKey(k.Private()); err != nil || again.ID() != "k1" {
		t.Errorf("the private key: %v", err)
	} else if g, err := with(t, Config{}, k).Check(t.Context(), view(sign(t, again, nil))); err != nil {
		t.Errorf("a token by the private key, read again: %v", err)
	} else {
		g.Close()
	}
	for name, text := range map[string]string{"a public set": public, "nothing": "", "a list": "[]", "a seed that is short": strings.Replace(private, `"d": "`, `"d": "A`, 1)} {
		if _, err := ParsePrivateKey([]byte(text)); err == nil {
			t.Errorf("%s is taken for a private key", name)
		}
	}
}

// Inspect returns the content of a token without its key, as it was signed.
func TestInspect(t *testing.T) {
	k := newKey(t, "k1")
	got, err := Inspect(sign(t, k, func(t *Token) { t.Subject, t.Sessions = "alice", 2 }))
	if err != nil || got.Subject != "alice" || got.Sessions != 2 || got.KeyID != "k1" || got.Algorithm != EdDSA || len(got.Streams) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := Inspect("a.b.c"); reasonOf(err) != Malformed {
		t.Errorf("nonsense: %v", err)
	}
}

func FuzzToken(f *testing.F) {
	k, other := newKey(f, "k1"), newKey(f, "k1")
	secret, _ := NewSecret("s1")
	r := with(f, Config{}, k, secret)
	for _, s := range []string{"", "a.b.c", "..", sign(f, k, nil), sign(f, other, nil), sign(f, secret, nil), sign(f, k, func(t *Token) { t.Streams = []string{"live/*"} }),
		forge(`{"alg":"none"}`, `{}`, func([]byte) []byte { return nil }), forge(`{"alg":"HS256","kid":"s1"}`, claimsOf(sign(f, k, nil)), func([]byte) []byte { return nil })} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		_, _ = Inspect(token)
		g, err := r.Check(t.Context(), view(token))
		if err == nil {
			g.Close()
			if _, inspected := Inspect(token); inspected != nil {
				t.Errorf("%q lets its bearer in, and cannot be read", token)
			}
			return
		}
		var refused *Refusal
		if !errors.As(err, &refused) || refused.Detail == "" || len(token) > 40 && strings.Contains(refused.Detail, token) {
			t.Errorf("%q: %v", token, err)
		}
	})
}

func FuzzKeys(f *testing.F) {
	secret, _ := NewSecret("s")
	for _, s := range []string{"", "{}", `{"keys":[]}`, `{"keys":null}`, setOf(newKey(f, "k1"), secret), `{"keys":[{"kty":"RSA"}]}`, string(newKey(f, "k").Private())} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, secrets := range []bool{true, false} {
			set, err := ParseKeys(b, secrets)
			if err != nil {
				continue
			}
			if set.Len() > maxKeys || set.Secret() && !secrets {
				t.Errorf("%q gave %d keys, secret %t", b, set.Len(), set.Secret())
			}
			for _, k := range set.keys {
				if k.ID == "" || k.print == "" || k.Algorithm == EdDSA && len(k.public) != ed25519.PublicKeySize || k.Algorithm == HS256 && len(k.secret) < minSecret {
					t.Errorf("%q gave %+v", b, k)
				}
			}
		}
		if k, err := ParsePrivateKey(b); err == nil {
			if _, err := ParseKeys(k.Public(), true); err != nil {
				t.Errorf("the public set of %q: %v", b, err)
			}
		}
	})
}
