package rights

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func hooked(t *testing.T, e *endpoint, keys ...*PrivateKey) *Rights {
	return with(t, Config{Hook: "https://hook.example.org/?key=secret", HTTP: &http.Client{Transport: e}}, keys...)
}

// The hook's answer is a yes, a no, or neither.
func TestVerdicts(t *testing.T) {
	e := &endpoint{}
	r := hooked(t, e)
	const token = "a-password-that-nobody-may-read"
	for _, c := range []struct {
		name         string
		status       int
		kind, answer string
		want         Reason // "": allowed
		says         string
	}{
		{"a yes", 200, "application/json", `{"allow":true}`, "", ""},
		{"a yes, with a charset", 200, "application/json; charset=utf-8", `{"allow":true,"more":[1]}`, "", ""},
		{"a yes without words", 204, "", "", "", ""},
		{"a no", 200, "application/json", `{"allow":false,"reason":"not paid"}`, HookRefused, "not paid"},
		{"a no by status", 403, "text/plain", "go away", HookRefused, "does not allow"},
		{"a no by status that says yes", 401, "application/json", `{"allow":true}`, HookRefused, ""},
		{"a no with the token", 403, "application/json", `{"reason":"` + token + ` is wrong"}`, HookRefused, "… is wrong"},
		{"a no with escapes", 403, "application/json", `{"reason":"\u001b[2J` + strings.Repeat("x", 9000) + `"}`, HookRefused, "xxx"},
		{"a page", 200, "text/html", "<html>", HookFailed, "something else"},
		{"JSON that calls itself text", 200, "text/plain", `{"allow":true}`, HookFailed, "something else"},
		{"no word of it", 200, "application/json", `{}`, HookFailed, "something else"},
		{"a yes in words", 200, "application/json", `{"allow":"yes"}`, HookFailed, "something else"},
		{"created", 201, "application/json", `{"allow":true}`, HookFailed, "status 201"},
		{"elsewhere", 302, "", "", HookFailed, "status 302"},
		{"a fault", 500, "application/json", `{"allow":true}`, HookFailed, "status 500"},
		{"a flood", 200, "application/json", `{"allow":true,"x":"` + strings.Repeat("x", maxHookBody) + `"}`, HookFailed, "more than"},
		{"a right of less than no time", 200, "application/json", `{"allow":true,"expires_in":-1}`, HookFailed, "a bound that is none"},
	} {
		e.says(c.status, c.kind, c.answer)
		g, err := r.Check(t.Context(), view(token))
		g.Close()
		if reasonOf(err) != c.want {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
			continue
		}
		if err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "\x1b") || strings.Contains(err.Error(), "secret") || len(err.Error()) > 600) {
			t.Errorf("%s: the client is told %q", c.name, err)
		}
	}
}

// Where keys have verified a token, the hook gets the subject and not the
// token. Both must allow, and the tighter bound applies.
func TestHookBesideKeys(t *testing.T) {
	k := newKey(t, "")
	e := &endpoint{}
	var asked question
	e.with(func(r *http.Request) (*http.Response, error) {
		asked = question{}
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		return respond(200, "application/json", `{"allow":true,"expires_in":10,"sessions":1}`), nil
	})
	r := hooked(t, e, k)
	token := sign(t, k, func(t *Token) { t.Subject = "alice" })
	g, err := r.Check(t.Context(), view(token))
	if err != nil {
		t.Fatal(err)
	}
	if want := (question{Action: View, Stream: "demo", Network: "net", Client: "192.0.2.1", Subject: "alice", TokenID: "one"}); asked != want {
		t.Errorf("asked %+v, want %+v", asked, want)
	}
	if left := time.Until(g.Expires); left > 10*time.Second || g.sessions != 1 {
		t.Errorf("granted for %v, %d sessions", left, g.sessions)
	}
	if _, err := r.Check(t.Context(), view(token)); reasonOf(err) != TooMany {
		t.Errorf("a second session: %v", err)
	}
	g.Close()
	before := e.asked.Load()
	if _, err := r.Check(t.Context(), view("x.y.z")); reasonOf(err) != Malformed || e.asked.Load() != before {
		t.Errorf("a token that is none: %v, and the hook was asked", err)
	}
}

// A hanging hook delays a request no longer than its timeout; the number of
// waiting requests is bounded, and none holds anything afterwards.
func TestHookThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &endpoint{}
		var at, most atomic.Int64
		e.with(func(r *http.Request) (*http.Response, error) {
			most.Store(max(most.Load(), at.Add(1)))
			defer at.Add(-1)
			return hangs(r)
		})
		r := hooked(t, e)
		began := time.Now()
		var all sync.WaitGroup
		var busy, failed atomic.Int64
		for range hooksAtOnce + hooksWaiting + 100 {
			all.Go(func() {
				switch _, err := r.Check(context.Background(), view("x")); reasonOf(err) {
				case HookBusy:
					busy.Add(1)
				case HookFailed:
					failed.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > 5*time.Second || most.Load() > hooksAtOnce || busy.Load() < 100 || failed.Load() < hooksAtOnce {
			t.Errorf("all were answered after %v, %d at a time; %d failed, %d were too many", took, most.Load(), failed.Load(), busy.Load())
		}
		e.says(204, "", "")
		if g, err := r.Check(t.Context(), view("x")); err != nil || len(r.hook.turns)+len(r.hook.waiting) != 0 {
			t.Errorf("afterwards: %v", err)
		} else {
			g.Close()
		}
	})
}

func FuzzVerdict(f *testing.F) {
	f.Add(200, "application/json", []byte(`{"allow":true,"expires_in":1e308,"sessions":9}`), "token")
	f.Add(403, "application/json", []byte(`{"reason":"Bearer eyJhbGciOiJub25lIn0.e30.x"}`), "eyJhbGciOiJub25lIn0.e30.x")
	f.Add(204, "", []byte(nil), "")
	f.Fuzz(func(t *testing.T, status int, kind string, body []byte, token string) {
		v, err := parseVerdict(status, kind, body)
		if err != nil {
			return
		}
		if v.Allow == nil || *v.Allow && status != 200 && status != 204 {
			t.Errorf("status %d and %q are taken for a yes", status, body)
		}
		if said := told(v.Reason, token); len(said) > maxReason || len(token) > 8 && strings.Contains(said, token) {
			t.Errorf("the client is told %q", said)
		}
	})
}
