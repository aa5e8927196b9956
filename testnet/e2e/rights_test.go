package e2e

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"weir/capacity/event"
	"weir/sfu/client"
	"weir/sfu/problem"
	"weir/sfu/rights"
	"weir/testnet/printed"
)

// An authority signs tokens with weir token new, by a key of its own in dir.
type authority struct {
	t        *testing.T
	key, set string // files
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	dir := t.TempDir()
	a := &authority{t, filepath.Join(dir, "token.key"), filepath.Join(dir, "keys.json")}
	if r := cli(t, "token", "key", "--kid", "first", "--public", a.set, a.key); r.code != ok {
		t.Fatal(r.errout)
	}
	return a
}

// token is a token signed by weir token new with further arguments.
func (a *authority) token(args ...string) string {
	a.t.Helper()
	r := cli(a.t, append([]string{"token", "new", "--key", a.key}, args...)...)
	if r.code != ok {
		a.t.Fatal(r.errout)
	}
	return strings.TrimSpace(r.out)
}

// forged is a token with the given header and the claims of like, signed by sign.
func forged(header, like string, sign func([]byte) []byte) string {
	text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + strings.Split(like, ".")[1]
	return text + "." + base64.RawURLEncoding.EncodeToString(sign([]byte(text)))
}

func bearer(token string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token}
}

// admitted publishes with a token until the test ends, and views with one.
func admitted(t *testing.T, n node, stream, publishing, viewing string) (*client.Publisher, *client.Viewer) {
	t.Helper()
	p := publishAs(t, n.whip(stream), publishing)
	return p, viewAs(t, n.whep(stream), viewing)
}

func publishAs(t *testing.T, url, token string) *client.Publisher {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := client.Publish(ctx, client.PublishConfig{URL: url, Token: token, Media: clip})
	if err != nil {
		t.Fatal(err)
	}
	running, end := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = p.Run(running) // it ends with its right, or with the test
	}()
	t.Cleanup(func() {
		end()
		<-ran
		_ = p.Close() // its session may have ended
	})
	return p
}

func viewAs(t *testing.T, url, token string) *client.Viewer {
	t.Helper()
	return viewBy(t, client.ViewConfig{URL: url, Token: token})
}

// keepsToItself fails the test if one of secrets is in the node's log, API
// answers or metrics.
func (n node) keepsToItself(t *testing.T, secrets ...string) {
	t.Helper()
	log, err := os.ReadFile(n.Log)
	if err != nil {
		t.Fatal(err)
	}
	var events json.RawMessage = []byte(cli(t, "events", "--admin", strings.TrimPrefix(n.Admin, "http://"), "--json").out)
	for where, text := range map[string]string{
		"log": string(log), "events": string(events), "metrics": n.get(t, "/metrics"), "sessions": n.get(t, "/api/v1/sessions"), "status": n.get(t, "/api/v1/status"),
	} {
		for _, s := range secrets {
			for part := range strings.SplitSeq(s, ".") { // a signature alone is half a token
				if len(part) > 40 && strings.Contains(text, part) {
					t.Errorf("a part of a token is in %s's %s", n.Name, where)
				}
			}
		}
	}
}

// Every reason for rejecting a token is distinguished: in the client's error,
// in the events and in the metrics. Sessions of valid ones continue, and end
// within seconds when their key is removed.
func TestTokensLetClientsIn(t *testing.T) {
	t.Parallel()
	a, stranger := newAuthority(t), newAuthority(t)
	w := up(t, 1, func(int) []string { return []string{"--auth-keys", a.set, "--log-level", "debug"} })
	n := w.n(1)
	events := n.follow(t)
	view := a.token("--view", "--subject", "viewer", "demo", "live/*")
	public := a.token("--publish", "demo")
	_, v := admitted(t, n, "demo", public, view)

	shared := []byte("the public key, for a secret of HS256: it is known to all")
	nothing := func([]byte) []byte { return nil }
	mac := func(text []byte) []byte {
		h := hmac.New(sha256.New, shared)
		h.Write(text)
		return h.Sum(nil)
	}
	_, own, _ := ed25519.GenerateKey(nil)
	once := a.token("--view", "--once", "demo")
	one := viewAs(t, n.whep("demo"), once)
	single := a.token("--view", "--sessions", "1", "--subject", "single", "demo")
	viewAs(t, n.whep("demo"), single)
	offer := viewerOffer(t)
	refused := []string{view, public, once, single}
	for _, c := range []struct {
		name, path, token string
		status            int
		code              problem.Code
		reason            string
	}{
		{"no token", "/whep/demo", "", 401, problem.Unauthorized, "token-missing"},
		{"another network's", "/whep/demo", a.token("--view", "--network", "elsewhere", "demo"), 401, problem.Unauthorized, "token-other-network"},
		{"expired", "/whep/demo", expired(t, a), 401, problem.Unauthorized, "token-expired"},
		{"not yet valid", "/whep/demo", a.token("--view", "--after", "1h", "demo"), 401, problem.Unauthorized, "token-not-yet-valid"},
		{"another stream's", "/whep/other", view, 403, problem.Forbidden, "token-other-stream"},
		{"one level up", "/whep/live", view, 403, problem.Forbidden, "token-other-stream"},
		{"to publish", "/whep/demo", public, 403, problem.Forbidden, "token-other-right"},
		{"to view", "/whip/demo", view, 403, problem.Forbidden, "token-other-right"},
		{"alg none", "/whep/demo", forged(`{"alg":"none","kid":"first"}`, view, nothing), 401, problem.Unauthorized, "token-alg-none"},
		{"alg None", "/whep/demo", forged(`{"alg":"None","kid":"first"}`, view, nothing), 401, problem.Unauthorized, "token-alg-none"},
		{"HS256 for EdDSA", "/whep/demo", forged(`{"alg":"HS256","kid":"first"}`, view, mac), 401, problem.Unauthorized, "token-algorithm"},
		{"RS256", "/whep/demo", forged(`{"alg":"RS256","kid":"first"}`, view, mac), 401, problem.Unauthorized, "token-algorithm"},
		{"an unknown kid", "/whep/demo", forged(`{"alg":"EdDSA","kid":"second"}`, view, mac), 401, problem.Unauthorized, "token-unknown-key"},
		{"a stranger's", "/whep/demo", stranger.token("--view", "demo"), 401, problem.Unauthorized, "token-signature"},
		{"forged", "/whep/demo", forged(`{"alg":"EdDSA","kid":"first"}`, view, func(b []byte) []byte { return ed25519.Sign(own, b) }), 401, problem.Unauthorized, "token-signature"},
		{"malformed", "/whep/demo", "secret-word-that-is-no-token-at-all-but-long-enough", 401, problem.Unauthorized, "token-malformed"},
		{"too large", "/whep/demo", strings.Repeat("a", 9<<10), 401, problem.Unauthorized, "token-too-large"},
		{"used", "/whep/demo", once, 401, problem.Unauthorized, "token-used"},
		{"in use", "/whep/demo", single, 429, problem.TooManySessions, "token-sessions"},
	} {
		refused = append(refused, c.token)
		for _, by := range []string{"header", "URL"} {
			url, header := n.HTTP+c.path, map[string]string(nil)
			if c.token != "" && by == "header" {
				header = bearer(c.token)
			} else if c.token != "" {
				url += "?token=" + c.token
			}
			p := problemOf(t, http.MethodPost, url, "application/sdp", offer, header)
			if p.Status != c.status || p.Code != c.code || p.Reason != c.reason {
				t.Errorf("%s, in the %s: %d %s, %s: %s; want %d %s, %s", c.name, by, p.Status, p.Code, p.Reason, p.Detail, c.status, c.code, c.reason)
			}
			if c.token != "" && strings.Contains(p.Detail, c.token) {
				t.Errorf("%s: the token is in %q", c.name, p.Detail)
			}
			resp, _ := send(t, http.MethodPost, url, "application/sdp", offer, header)
			if want := c.status == 401 || c.status == 403; want != strings.HasPrefix(resp.Header.Get("WWW-Authenticate"), `Bearer realm="weir"`) {
				t.Errorf("%s: WWW-Authenticate: %q", c.name, resp.Header.Get("WWW-Authenticate"))
			}
		}
		stream := strings.SplitN(c.path, "/", 3)[2]
		eventually(t, "an event tells of "+c.reason, func() bool {
			for _, e := range events.of(event.Refused, stream) {
				if e.Reason == c.reason {
					return true
				}
			}
			return false
		})
		if got := n.metric(t, `weir_client_refusals_total{reason="`+strings.ReplaceAll(c.reason, "-", "_")+`"}`); got < 4 {
			t.Errorf("%s: %v refusals are counted by %s, want 4 at least", c.name, got, c.reason)
		}
	}
	if p := problemOf(t, http.MethodPost, n.whep("demo")+"?token=other", "application/sdp", offer, bearer(view)); p.Reason != "token-twice" {
		t.Errorf("two tokens: %+v", p)
	}
	// A preflight has no token, and requests to a session's URL need none.
	if resp, _ := send(t, http.MethodOptions, n.whep("demo"), "", "", map[string]string{"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "POST"}); resp.StatusCode != http.StatusNoContent {
		t.Errorf("a preflight: %s", resp.Status)
	}
	resp, text := send(t, http.MethodPost, n.whep("demo")+"?token="+view, "application/sdp", offer, nil)
	if resp.StatusCode != http.StatusCreated || strings.Contains(resp.Header.Get("Location"), "token") {
		t.Errorf("by ?token=: %s, %s: %s", resp.Status, resp.Header.Get("Location"), text)
	}
	if resp, _ := send(t, http.MethodDelete, resp.Header.Get("Location"), "", "", nil); resp.StatusCode != http.StatusOK {
		t.Errorf("DELETE without a token: %s", resp.Status)
	}
	subjects := map[string]bool{}
	for _, s := range n.sessions(t) {
		subjects[s.Subject] = true
	}
	if !subjects["viewer"] || !subjects["single"] {
		t.Errorf("sessions are for %v", subjects)
	}
	flows(t, v, one)

	// An invalid file changes nothing, and is reported.
	good, err := os.ReadFile(a.set)
	if err != nil {
		t.Fatal(err)
	}
	rename(t, a.set, []byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"first","x":"AAAA"}]}`))
	eventually(t, "the bad file is told of", func() bool { return len(events.of(event.KeysRefused, "")) > 0 })
	rename(t, a.set, []byte(`{"keys":[`))
	eventually(t, "the cut file is told of", func() bool { return len(events.of(event.KeysRefused, "")) > 1 })
	if err := os.Remove(a.set); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the missing file is told of", func() bool { return len(events.of(event.KeysRefused, "")) > 2 })
	says(t, cli(t, "doctor", "--admin", strings.TrimPrefix(n.Admin, "http://")).out, "1 key of the file of keys, which cannot be used as it is now")
	viewAs(t, n.whep("demo"), view)
	flows(t, v)

	// Replacing the key ends all of its sessions.
	rename(t, a.set, mustRead(t, stranger.set))
	began := time.Now()
	eventually(t, "sessions have ended", func() bool { return len(n.sessions(t)) == 0 })
	t.Logf("5 sessions ended %v after their key was removed", time.Since(began).Round(time.Millisecond))
	for _, e := range events.of(event.SessionClosed, "demo") {
		if e.Reason != "deleted" && e.Reason != "token_key_removed" && e.Reason != "stream_ended" && e.Reason != "closed" {
			t.Errorf("%s ended by %s: %s", e.Role, e.Reason, e.Detail)
		}
	}
	if got := n.metric(t, `weir_rights_ended_sessions_total{reason="token_key_removed"}`); got < 1 {
		t.Errorf("%v sessions are counted that ended with their key", got)
	}
	rename(t, a.set, good)
	eventually(t, "the first key is back", func() bool { return n.metric(t, `weir_rights_keys_reads_total{outcome="good",source="file"}`) >= 3 })
	publishAs(t, n.whip("demo"), public)
	n.keepsToItself(t, refused...)
}

// rename replaces a file atomically, as operators' tools do.
func rename(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// expired is an expired token: weir token new makes none.
func expired(t *testing.T, a *authority) string {
	t.Helper()
	var key struct{ D string }
	if err := json.Unmarshal(mustRead(t, a.key), &key); err != nil {
		t.Fatal(err)
	}
	seed, err := base64.RawURLEncoding.DecodeString(key.D)
	if err != nil {
		t.Fatal(err)
	}
	claims := `{"aud":"open","exp":1000000000,"weir":{"rights":["view"],"streams":["demo"]}}`
	like := "x." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
	return forged(`{"alg":"EdDSA","kid":"first"}`, like, func(b []byte) []byte { return ed25519.Sign(ed25519.NewKeyFromSeed(seed), b) })
}

// A client redirected by a full node is served where its ticket is trusted, by
// redirect and by relay, without another token; a foreign node's ticket is
// trusted nowhere.
func TestRightHoldsAtAnotherNode(t *testing.T) {
	t.Parallel()
	for _, overflow := range []string{"redirect", "relay"} {
		t.Run(overflow, func(t *testing.T) {
			a := newAuthority(t)
			secret := filepath.Join(t.TempDir(), "tickets")
			if r := cli(t, "token", "secret", secret); r.code != ok {
				t.Fatal(r.errout)
			}
			w := up(t, 3, func(i int) []string {
				switch flags := []string{"--auth-keys", a.set, "--ticket-secret", secret, "--log-level", "debug"}; i {
				case 1:
					return append(flags, "--session-limit", "2", "--overflow", overflow)
				case 2:
					return flags
				}
				return []string{"--session-limit", "1"} // a foreign node's, which requires no token
			})
			full, helper, stranger := w.n(1), w.n(2), w.n(3)
			w.see(t)
			view, public := a.token("--view", "--subject", "alice", "--sessions", "2", "*"), a.token("--publish", "*")
			_, stays := admitted(t, full, "demo", public, view)
			events := helper.follow(t)
			sent := viewAs(t, full.whep("demo"), view)
			if !strings.HasPrefix(sessionAt(t, helper, "alice"), "viewer of demo") {
				t.Errorf("%s does not know whose the session is", helper.Name)
			}
			flows(t, sent, stays)
			moved := publishAs(t, full.whip("second"), public)
			if overflow == "redirect" && (!helper.serves(moved.NodeURL()) || !helper.serves(sent.NodeURL())) {
				t.Errorf("clients were sent to %s and %s, and not to the node that shares the secret", moved.NodeURL(), sent.NodeURL())
			}
			if n := len(stranger.sessions(t)); n != 0 {
				t.Errorf("the stranger has %d of the clients", n)
			}

			// The foreign node redirects its own clients anywhere: they are not
			// admitted.
			publish(t, stranger.whip("theirs"))
			helper.finds(t, "theirs")
			resp, text := stranger.post(t, stranger.whep("theirs"), viewerOffer(t))
			if resp.StatusCode != http.StatusTemporaryRedirect {
				t.Fatalf("the stranger: %s: %s", resp.Status, text)
			}
			p := problemOf(t, http.MethodPost, resp.Header.Get("Location"), "application/sdp", viewerOffer(t), nil)
			if p.Code != problem.Forbidden || p.Reason != "ticket-not-trusted" {
				t.Errorf("with the stranger's ticket: %+v", p)
			}

			// The key is removed: sessions at the other node end, too.
			rename(t, a.set, []byte(`{"keys":[]}`))
			began := time.Now()
			eventually(t, "no session is left", func() bool { return len(full.sessions(t))+len(helper.sessions(t)) == 0 })
			t.Logf("all sessions at both nodes had ended %v after their key was removed", time.Since(began).Round(time.Millisecond))
			ended := false
			for _, e := range events.of(event.SessionClosed, "second") { // that of demo ends with its publisher at the other node
				ended = ended || e.Reason == "token_key_removed"
			}
			if !ended {
				t.Errorf("%s tells of %+v", helper.Name, events.of(event.SessionClosed, ""))
			}
			for _, n := range []node{full, helper, stranger} {
				n.keepsToItself(t, view, public, strings.TrimSpace(string(mustRead(t, secret))))
			}
		})
	}
}

// sessionAt waits for a session of subject at n, and describes it.
func sessionAt(t *testing.T, n node, subject string) (what string) {
	t.Helper()
	eventually(t, n.Name+" has a session of "+subject, func() bool {
		for _, s := range n.sessions(t) {
			if s.Subject == subject {
				what = fmt.Sprintf("%s of %s", map[string]string{"whip": "publisher", "whep": "viewer"}[string(s.Kind)], s.Stream)
			}
		}
		return what != ""
	})
	return what
}

// A full node without a shared secret does not redirect clients to nodes that
// could not verify their right.
func TestFullNodeWithoutSecretForTickets(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	w := up(t, 2, func(i int) []string {
		if i == 1 {
			return []string{"--auth-keys", a.set, "--session-limit", "2"}
		}
		return nil
	})
	w.see(t)
	full := w.n(1)
	view := a.token("--view", "demo")
	admitted(t, full, "demo", a.token("--publish", "demo"), view)
	p := problemOf(t, http.MethodPost, full.whep("demo"), "application/sdp", viewerOffer(t), bearer(view))
	if p.Code != problem.NoCapacity || p.Reason != "sessions" {
		t.Errorf("%+v", p)
	}
	says(t, p.Detail, "no secret for tickets")
	says(t, string(mustRead(t, full.Log)), "--ticket-secret")
}

// A keyServer is a JWKS endpoint that can be made to fail.
type keyServer struct {
	*httptest.Server
	asked atomic.Int64
	serve atomic.Pointer[http.HandlerFunc]
}

func newKeyServer(t *testing.T) *keyServer {
	s := &keyServer{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		(*s.serve.Load())(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *keyServer) with(f http.HandlerFunc) { s.serve.Store(&f) }

func (s *keyServer) file(t *testing.T, path string) {
	b := mustRead(t, path)
	s.with(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(b) })
}

// Fetched keys stay valid whatever happens to the endpoint; a new key is found
// when it is first used, and a removed one ends its sessions.
func TestKeysByURL(t *testing.T) {
	t.Parallel()
	a, next := newAuthority(t), newAuthority(t)
	server := newKeyServer(t)
	hung := make(chan struct{})
	t.Cleanup(func() { close(hung) })
	server.with(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	w := up(t, 1, func(int) []string {
		return []string{"--auth-jwks", server.URL + "/keys?key=secret-of-the-endpoint-that-nobody-should-read", "--auth-jwks-refresh", "1s"}
	})
	n := w.n(1)
	events := n.follow(t)
	view, public := a.token("--view", "demo"), a.token("--publish", "demo")
	offer := viewerOffer(t)
	if p := problemOf(t, http.MethodPost, n.whep("demo"), "application/sdp", offer, bearer(view)); p.Code != problem.RightsUnknown || p.Reason != "keys-unavailable" || p.RetryAfter == 0 {
		t.Errorf("before there are keys: %+v", p)
	}
	server.file(t, a.set)
	eventually(t, "the keys are fetched", func() bool { return n.metric(t, `weir_rights_keys{source="jwks"}`) == 1 })
	_, v := admitted(t, n, "demo", public, view)
	for name, f := range map[string]http.HandlerFunc{
		"hangs": func(w http.ResponseWriter, r *http.Request) { <-hung },
		"answers 5 MB": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"keys":[`+strings.Repeat(" ", 5<<20)+`]}`)
		},
	} {
		server.file(t, a.set)
		good, failed := `weir_rights_keys_reads_total{outcome="good",source="jwks"}`, `weir_rights_keys_reads_total{outcome="failed",source="jwks"}`
		read := n.metric(t, good)
		eventually(t, "the endpoint is well", func() bool { return n.metric(t, good) > read })
		before := n.metric(t, failed)
		server.with(f)
		eventually(t, "an endpoint that "+name+" is counted", func() bool { return n.metric(t, failed) > before })
		viewAs(t, n.whep("demo"), view)
	}
	if len(events.of(event.KeysRefused, "")) == 0 {
		t.Error("no event tells that the endpoint failed")
	}
	flows(t, v)

	// An unknown client that names unknown keys cannot cause requests to the
	// endpoint at will.
	server.file(t, a.set)
	eventually(t, "it is asked again", func() bool { return n.metric(t, `weir_rights_keys_reads_total{outcome="good",source="jwks"}`) > 1 })
	began, asked := time.Now(), server.asked.Load()
	for i := range 40 {
		problemOf(t, http.MethodPost, n.whep("demo"), "application/sdp", offer, bearer(forged(fmt.Sprintf(`{"alg":"EdDSA","kid":"k%d"}`, i), view, func([]byte) []byte { return make([]byte, 64) })))
	}
	if most := int64(time.Since(began)/(900*time.Millisecond)) + 4; server.asked.Load()-asked > most {
		t.Errorf("40 unknown keys had the endpoint asked %d times, want %d at most", server.asked.Load()-asked, most)
	}
	server.file(t, next.set)
	eventually(t, "sessions of the key that is gone have ended", func() bool { return len(n.sessions(t)) == 0 })
	publishAs(t, n.whip("demo"), next.token("--publish", "demo"))
	n.keepsToItself(t, view, public, "secret-of-the-endpoint-that-nobody-should-read")
}

// The hook decides, gets the information it needs, and its failures affect no
// other client.
func TestHookDecides(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []map[string]any
	hung := make(chan struct{})
	const password = "password-of-the-viewer-that-nobody-should-read-again"
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q map[string]any
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s of %s: %v", r.Method, r.Header.Get("Content-Type"), err)
		}
		mu.Lock()
		asked = append(asked, q)
		mu.Unlock()
		answer := func(status int, text string) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
		switch q["stream"] {
		case "demo":
			answer(200, `{"allow":true,"expires_in":3600,"subject":"carol","sessions":2}`)
		case "short":
			answer(200, `{"allow":true,"expires_in":6}`)
		case "free":
			w.WriteHeader(http.StatusNoContent)
		case "denied":
			answer(403, fmt.Sprintf(`{"reason":"not paid; Authorization: Bearer %s, token=%s"}`, q["token"], password))
		case "no":
			answer(200, `{"allow":false}`)
		case "page":
			_, _ = io.WriteString(w, "<html>log in</html>")
		case "silent":
			answer(200, `{}`)
		case "flood":
			answer(200, `{"allow":true,"x":"`+strings.Repeat("x", 1<<20)+`"}`)
		case "hang":
			<-hung
		case "broken":
			answer(500, `{"allow":true}`)
		case "elsewhere":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(hook.Close)
	t.Cleanup(func() { close(hung) })
	w := up(t, 1, func(int) []string {
		return []string{"--auth-hook", hook.URL, "--auth-hook-timeout", "3s", "--log-level", "debug"}
	})
	n := w.n(1)
	events := n.follow(t)
	_, v := admitted(t, n, "demo", password, password)
	flows(t, v)
	mu.Lock()
	if q := asked[0]; q["action"] != "publish" || q["stream"] != "demo" || q["network"] != "open" || q["client"] != "127.0.0.1" || q["token"] != password {
		t.Errorf("the hook was asked %v", q)
	}
	mu.Unlock()
	offer := viewerOffer(t)
	for _, c := range []struct {
		stream string
		status int
		code   problem.Code
		reason string
	}{
		{"demo", 429, problem.TooManySessions, "token-sessions"},
		{"denied", 403, problem.Forbidden, "hook-refused"},
		{"no", 403, problem.Forbidden, "hook-refused"},
		{"page", 503, problem.RightsUnknown, "hook-failed"},
		{"silent", 503, problem.RightsUnknown, "hook-failed"},
		{"flood", 503, problem.RightsUnknown, "hook-failed"},
		{"hang", 503, problem.RightsUnknown, "hook-failed"},
		{"broken", 503, problem.RightsUnknown, "hook-failed"},
		{"elsewhere", 503, problem.RightsUnknown, "hook-failed"},
	} {
		p := problemOf(t, http.MethodPost, n.whep(c.stream), "application/sdp", offer, bearer(password))
		if p.Status != c.status || p.Code != c.code || p.Reason != c.reason {
			t.Errorf("%s: %+v", c.stream, p)
		}
		if strings.Contains(p.Detail, password) {
			t.Errorf("%s: the client is told a secret: %s", c.stream, p.Detail)
		}
		if c.stream == "denied" {
			says(t, p.Detail, "not paid")
		}
	}
	if p := problemOf(t, http.MethodPost, n.whep("denied"), "application/sdp", offer, nil); p.Status != 401 {
		t.Errorf("without a token: %+v", p)
	}
	// Many requests while the hook hangs: all are answered, and other clients
	// are not delayed.
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			req, _ := http.NewRequest(http.MethodPost, n.whep("hang"), strings.NewReader(offer))
			req.Header.Set("Content-Type", "application/sdp")
			resp, err := web.Do(req)
			if err != nil || resp.StatusCode != http.StatusServiceUnavailable {
				t.Errorf("while the hook hangs: %v, %v", resp, err)
				return
			}
			resp.Body.Close()
		})
	}
	all.Wait()
	flows(t, v)
	publishAs(t, n.whip("free"), "")
	// A right granted for a limited time ends then.
	publishAs(t, n.whip("short"), password)
	eventually(t, "the short right has ended", func() bool {
		for _, e := range events.of(event.SessionClosed, "short") {
			return e.Reason == "token_expired"
		}
		return false
	})
	n.keepsToItself(t, password)
}

// Mistakes in token commands are reported before any action.
func TestTokenCommands(t *testing.T) {
	dir := t.TempDir()
	a := newAuthority(t)
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(a.key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v, %v", info.Mode(), err)
	}
	for _, c := range []struct {
		says []string
		args []string
	}{
		{[]string{"is there already"}, []string{"token", "key", a.key}},
		{[]string{"one FILE"}, []string{"token", "key"}},
		{[]string{"no such file"}, []string{"token", "new", "--key", filepath.Join(dir, "none"), "--view", "demo"}},
		{[]string{"public keys", "private one"}, []string{"token", "new", "--key", a.set, "--view", "demo"}},
		{[]string{"weir token key"}, []string{"token", "new", "--key", plain, "--view", "demo"}},
		{[]string{"--publish, --view"}, []string{"token", "new", "--key", a.key, "demo"}},
		{[]string{"name the streams"}, []string{"token", "new", "--key", a.key, "--view"}},
		{[]string{"one * may stand at the end"}, []string{"token", "new", "--key", a.key, "--view", "a*b"}},
		{[]string{"--ttl"}, []string{"token", "new", "--key", a.key, "--view", "--ttl", "-1s", "demo"}},
		{[]string{"24h"}, []string{"token", "new", "--key", a.key, "--view", "--once", "--ttl", "48h", "demo"}},
		{[]string{"sessions"}, []string{"token", "new", "--key", a.key, "--view", "--sessions", "-1", "demo"}},
		{[]string{"no JWT"}, []string{"token", "show", "nonsense"}},
		{[]string{"alg none"}, []string{"token", "show", forged(`{"alg":"none"}`, a.token("--view", "demo"), func([]byte) []byte { return nil })}},
		{[]string{"is there already"}, []string{"token", "secret", plain}},
		{[]string{"--auth-keys", "private key"}, []string{"node", "--auth-keys", private(t, a)}},
		{[]string{"--auth-keys", "no JWK set"}, []string{"node", "--auth-keys", plain}},
		{[]string{"--ticket-secret", "weir token secret"}, []string{"node", "--ticket-secret", plain}},
		{[]string{"--http 0.0.0.0:0", "--auth-keys", "--insecure-open"}, []string{"node", "--http", "0.0.0.0:0"}},
		{[]string{"--token", "blank"}, []string{"view", "--token", "a b", "http://127.0.0.1:1/whep/demo"}},
	} {
		fails(t, badInput, c.says, c.args...)
	}
	shown := cli(t, "token", "show", a.token("--view", "--publish", "--subject", "alice", "--once", "--sessions", "3", "live/*", "demo"))
	says(t, shown.out, "publish and view live/*, demo", "alice", "once", "3 at a time", "in network", "open", "EdDSA by key first", "expires")
	var said struct {
		State   string
		Streams []string
	}
	if r := cli(t, "token", "show", "--json", a.token("--view", "--after", "1h", "demo")); json.Unmarshal([]byte(r.out), &said) != nil || said.State != "not-yet-valid" || len(said.Streams) != 1 {
		t.Errorf("as JSON: %s%s", r.out, r.errout)
	}
	// HS256, for systems without anything else.
	secret := filepath.Join(dir, "hs256.json")
	if r := cli(t, "token", "key", "--hs256", "--kid", "old", secret); r.code != ok {
		t.Fatal(r.errout)
	}
	a.key = secret
	token := a.token("--publish", "--view", "demo")
	w := up(t, 1, func(int) []string { return []string{"--auth-keys", secret} })
	n := w.n(1)
	r := cli(t, "publish", "--pattern", "--duration", "2s", "--token", token, n.whip("demo"))
	if r.code != ok || strings.Contains(r.out+r.errout, token) {
		t.Errorf("weir publish --token: %d: %s%s", r.code, r.out, r.errout)
	}
	r = cliIn(t, []string{"WEIR_TOKEN=" + token + "x"}, "publish", "--pattern", "--duration", "2s", n.whip("demo"))
	if r.code != refused || strings.Contains(r.out+r.errout, token) {
		t.Errorf("with a token that is not whole: %d: %s%s", r.code, r.out, r.errout)
	}
	says(t, r.errout, "401")
	if _, err := client.View(t.Context(), client.ViewConfig{URL: n.whep("demo") + "?token=" + token + "x"}); !errors.As(err, new(*client.Refused)) || strings.Contains(err.Error(), token) {
		t.Errorf("by the URL: %v", err)
	}
	n.keepsToItself(t, token)
}

// private is a key set that includes the private key.
func private(t *testing.T, a *authority) string {
	path := filepath.Join(t.TempDir(), "private.json")
	if err := os.WriteFile(path, []byte(`{"keys":[`+string(mustRead(t, a.key))+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The guide's commands on tokens run unchanged.
func TestGuideToTokens(t *testing.T) {
	t.Parallel()
	guide := operating(t, "Who may publish and view")
	dir := t.TempDir()
	shell, err := printed.NewShell(weir, dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shell.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	run := func(line string) string {
		t.Helper()
		out, err := shell.Run(ctx, line)
		if err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
		return strings.TrimSpace(out)
	}
	run("ip address add 192.0.2.7/32 dev lo") // this machine's public address
	lines := printed.Lines(guide)
	if len(lines) != 4 {
		t.Fatalf("the guide shows %q", lines)
	}
	run(lines[0])
	public, view := run(lines[1]), run(lines[2])
	job, err := shell.Start(lines[3] + " --data-dir " + dir + "/node --listen /ip4/127.0.0.1/tcp/0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = job.Stop() })
	if err := job.Await(ctx, "node is ready"); err != nil {
		t.Fatal(err)
	}
	publishing, err := shell.Start("weir publish --pattern --token " + public + " http://192.0.2.7:8080/whip/demo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = publishing.Stop() })
	if err := publishing.Await(ctx, "kbit/s"); err != nil {
		t.Fatal(err)
	}
	says(t, run("WEIR_TOKEN="+view+" weir view --duration 2s http://192.0.2.7:8080/whep/demo"), "total")
	if out, err := shell.Run(ctx, "weir view http://192.0.2.7:8080/whep/demo"); err == nil || !strings.Contains(out, "401") {
		t.Errorf("without a token: %v: %s", err, out)
	}
	claims := strings.TrimSpace(block(t, guide, "json"))
	shown := cli(t, "token", "show", forged(`{"alg":"EdDSA"}`, "."+base64.RawURLEncoding.EncodeToString([]byte(claims))+".", func([]byte) []byte { return nil }))
	says(t, shown.out, "publish and view demo, live/*", "alice", "once", "2 at a time")
	for _, reason := range rights.Reasons() {
		if reason != rights.KeyRemoved && !strings.Contains(guide, "`"+string(reason)+"`") {
			t.Errorf("the guide does not name %s", reason)
		}
	}
}
