package sfu

import (
	"net/http"
	"strings"
	"testing"

	"weir/capacity/ledger"
	"weir/sfu/whip"
)

// Pages of named origins get CORS headers, on refusals too, and other pages do
// not. Clients that are no pages are served all the same.
func TestNamedOrigins(t *testing.T) {
	origins, err := whip.ParseOrigins([]string{"https://www.example.org", "http://localhost:3000"})
	if err != nil {
		t.Fatal(err)
	}
	a := newMesh(t).add(ledger.Limits{}, func(c *Config) { c.Origins = origins })
	for origin, allowed := range map[string]bool{
		"https://www.example.org": true, "http://localhost:3000": true, "": false, "null": false,
		"http://www.example.org": false, "https://www.example.org.evil.example": false, "https://evil.example": false,
	} {
		for _, c := range []struct {
			method, path string
			status       int
			vouched      bool // the page was allowed by another node, or here before
		}{
			{"OPTIONS", "/whip/x", 204, false}, {"POST", "/whep/none", 415, false}, {"POST", "/whep/none?tickets=x", 415, false},
			{"OPTIONS", "/whep/x?ticket=y", 204, true}, {"POST", "/whep/none?ticket=y", 403, true},
			{"OPTIONS", "/session/y", 204, true}, {"DELETE", "/session/none", 404, true},
		} {
			allowed := allowed || c.vouched && origin != ""
			resp, _ := call(t, c.method, a.web.URL+c.path, "", "", "Origin", origin)
			h := resp.Header
			want := ""
			if allowed {
				want = origin
			}
			if resp.StatusCode != c.status || h.Get("Access-Control-Allow-Origin") != want || !strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
				t.Errorf("%s %s from %q: %s, %v", c.method, c.path, origin, resp.Status, h)
			}
			for name := range h {
				if !allowed && strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s %s from %q: there is %s", c.method, c.path, origin, name)
				}
			}
			if c.method == http.MethodOptions && strings.HasPrefix(c.path, "/whip/") && h.Get("Accept-Post") != "application/sdp" {
				t.Errorf("from %q: discovery says %q", origin, h.Get("Accept-Post"))
			}
		}
	}
}
