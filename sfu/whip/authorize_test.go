package whip

import (
	"net/http/httptest"
	"testing"
)

// A token is found in the header and in the URL, and credentials of another
// kind are told apart from no credentials.
func TestTokenOf(t *testing.T) {
	for _, c := range []struct {
		header, query, want string
		otherwise, bad      bool
	}{
		{"", "", "", false, false},
		{"Bearer a.b.c", "", "a.b.c", false, false},
		{"bearer a.b.c", "", "a.b.c", false, false},
		{"BEARER\ta.b.c ", "", "a.b.c", false, false},
		{"Bearer", "", "", false, false},
		{"Bearer ", "?token=a.b.c", "a.b.c", false, false},
		{"", "?token=a.b.c", "a.b.c", false, false},
		{"Bearer a.b.c", "?token=a.b.c", "a.b.c", false, false},
		{"Bearer a.b.c", "?token=d.e.f", "", false, true},
		{"Basic dXNlcjpwYXNz", "", "", true, false},
		{"a.b.c", "", "", true, false},
		{"Basic dXNlcjpwYXNz", "?token=a.b.c", "a.b.c", true, false}, // a proxy's, beside ours
		{"Bearer a b", "", "a b", false, false},                      // refused as malformed
	} {
		r := httptest.NewRequest("POST", "/whep/demo"+c.query, nil)
		r.Header.Set("Authorization", c.header)
		if token, otherwise, err := tokenOf(r); token != c.want || otherwise != c.otherwise || (err != nil) != c.bad {
			t.Errorf("%q and %q: %q, %t, %v", c.header, c.query, token, otherwise, err)
		}
	}
}
