package auth

import (
	"strings"
	"testing"
	"time"

	"weir/dht/inspect"
	"weir/sfu/rights"
)

// The doctor reports that no client is admitted, and keys that are not in the
// expected state.
func TestCheckRights(t *testing.T) {
	now := time.Now()
	file := rights.Source{Name: "file", Keys: 2, Read: now.Add(-time.Hour)}
	jwks := rights.Source{Name: "jwks", Keys: 1, Read: now.Add(-time.Minute)}
	with := func(s rights.Source, change func(*rights.Source)) rights.Source {
		change(&s)
		return s
	}
	for _, c := range []struct {
		name    string
		sources []rights.Source
		handsOn bool
		outcome inspect.Outcome
		says    string
	}{
		{"all is well", []rights.Source{file, jwks}, true, inspect.Fine, "2 keys of the file of keys, 1 key of the URL of keys"},
		{"only a hook", nil, true, inspect.Fine, "are asked for"},
		{"a URL that was never read", []rights.Source{file, with(jwks, func(s *rights.Source) { s.Keys, s.Read = 0, time.Time{} })}, true, inspect.Failure, "never been read"},
		{"a file that is broken", []rights.Source{with(file, func(s *rights.Source) { s.Failing = true })}, true, inspect.Warning, "what it said 1h0m0s ago"},
		{"no key", []rights.Source{with(file, func(s *rights.Source) { s.Keys = 0 })}, true, inspect.Failure, "no token admits a client"},
		{"no secret for tickets", []rights.Source{file}, false, inspect.Warning, "sends no client on"},
	} {
		got := Check(rights.Status{Sources: c.sources}, c.handsOn, now)
		if got.Outcome != c.outcome || !strings.Contains(got.Seen, c.says) || (got.Do == "") != (got.Outcome == inspect.Fine) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}
