package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A page of another site in the operator's browser gets no answer, with any
// kind of request; the operator and programs do.
func TestAdminIsNotForOtherSites(t *testing.T) {
	h := sameSite(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "served") }))
	for _, tt := range []struct {
		name, host string
		header     [2]string
		want       int
	}{
		{"a program", "127.0.0.1:8081", [2]string{}, http.StatusOK},
		{"by the name of this machine's loopback", "localhost:8081", [2]string{}, http.StatusOK},
		{"by IPv6", "[::1]:8081", [2]string{}, http.StatusOK},
		{"the address bar", "127.0.0.1:8081", [2]string{"Sec-Fetch-Site", "none"}, http.StatusOK},
		{"a link on its own page", "127.0.0.1:8081", [2]string{"Sec-Fetch-Site", "same-origin"}, http.StatusOK},
		{"its own script", "127.0.0.1:8081", [2]string{"Origin", "http://127.0.0.1:8081"}, http.StatusOK},
		{"a picture in another site's page", "127.0.0.1:8081", [2]string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden},
		{"a page on another port of this machine", "localhost:8081", [2]string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden},
		{"another site's script", "127.0.0.1:8081", [2]string{"Origin", "https://elsewhere.example"}, http.StatusForbidden},
		{"a page without an origin", "127.0.0.1:8081", [2]string{"Origin", "null"}, http.StatusForbidden},
		{"a name bound to our address", "elsewhere.example:8081", [2]string{}, http.StatusForbidden},
	} {
		for _, path := range []string{"/debug/pprof/profile", "/api/v1/status", "/metrics"} {
			r := httptest.NewRequest(http.MethodGet, path, nil)
			r.Host = tt.host
			if tt.header[0] != "" {
				r.Header.Set(tt.header[0], tt.header[1])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%s, GET %s: %d, want %d", tt.name, path, w.Code, tt.want)
			}
		}
	}
}
