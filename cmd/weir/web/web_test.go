package web

import (
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func get(t *testing.T, method, path string, header http.Header) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for k, v := range header {
		r.Header[k] = v
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestHandlerPaths(t *testing.T) {
	for _, c := range []struct {
		name, method, path string
		status             int
		contentType        string
	}{
		{"the network page", "GET", "/", 200, "text/html; charset=utf-8"},
		{"the publish page", "GET", "/publish", 200, "text/html; charset=utf-8"},
		{"the play page without a stream", "GET", "/play", 200, "text/html; charset=utf-8"},
		{"a stream", "GET", "/play/demo", 200, "text/html; charset=utf-8"},
		{"a stream whose name has parts", "GET", "/play/hall/camera.1", 200, "text/html; charset=utf-8"},
		{"HEAD is answered like GET", "HEAD", "/play/demo", 200, "text/html; charset=utf-8"},
		{"a module", "GET", "/assets/console.js", 200, "text/javascript; charset=utf-8"},
		{"the style sheet", "GET", "/assets/console.css", 200, "text/css; charset=utf-8"},
		{"the icon", "GET", "/assets/icon.svg", 200, "image/svg+xml"},
		{"a page is no asset", "GET", "/assets/index.html", 404, "text/plain; charset=utf-8"},
		{"no list of assets", "GET", "/assets/", 404, "text/plain; charset=utf-8"},
		{"no way out of the assets", "GET", "/assets/../web.go", 404, "text/plain; charset=utf-8"},
		{"an unknown page", "GET", "/player", 404, "text/plain; charset=utf-8"},
		{"an unknown call is not a page", "GET", "/api/v2/status", 404, "text/plain; charset=utf-8"},
		{"nothing can be posted", "POST", "/", 405, "text/plain; charset=utf-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := get(t, c.method, c.path, nil)
			if res.StatusCode != c.status {
				t.Errorf("status = %d, want %d", res.StatusCode, c.status)
			}
			if got := res.Header.Get("Content-Type"); got != c.contentType {
				t.Errorf("Content-Type = %q, want %q", got, c.contentType)
			}
			// A refusal is as guarded as a page.
			csp := res.Header.Get("Content-Security-Policy")
			if !strings.HasPrefix(csp, "default-src 'none'; script-src 'self';") || strings.Contains(csp, "unsafe") {
				t.Errorf("Content-Security-Policy = %q", csp)
			}
			if got := res.Header.Get("X-Content-Type-Options"); got != "nosniff" {
				t.Errorf("X-Content-Type-Options = %q, want nosniff", got)
			}
			if c.method == "HEAD" && body(t, res) != "" {
				t.Error("HEAD was answered with a body")
			}
		})
	}
}

func TestHandlerRevalidates(t *testing.T) {
	const path = "/assets/console.css"
	first := get(t, "GET", path, nil)
	etag := first.Header.Get("ETag")
	if !regexp.MustCompile(`^"[0-9a-f]{24}"$`).MatchString(etag) {
		t.Fatalf("ETag = %q, want a strong one", etag)
	}
	if got := first.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("Cache-Control = %q, want no-cache", got)
	}
	if other := get(t, "GET", "/", nil).Header.Get("ETag"); other == etag {
		t.Error("two files share an ETag")
	}
	for _, c := range []struct {
		name, header string
		status       int
	}{
		{"the same", etag, 304},
		{"one of several", `"x", W/` + etag, 304},
		{"any", "*", 304},
		{"another", `"x"`, 200},
		{"an empty header", "", 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			res := get(t, "GET", path, http.Header{"If-None-Match": {c.header}})
			if res.StatusCode != c.status {
				t.Errorf("status = %d, want %d", res.StatusCode, c.status)
			}
			if c.status == 304 && (body(t, res) != "" || res.Header.Get("ETag") != etag) {
				t.Error("a 304 carries the ETag and no body")
			}
		})
	}
}

// The policy allows no inline script or style, so the files must have none, and
// whatever they name must be embedded too.
func TestFilesFitThePolicy(t *testing.T) {
	files := load()
	inline := regexp.MustCompile(`(?i)<style|<script(?:[^>]*)>[^<]|\sstyle\s*=|\son[a-z]+\s*=|javascript:`)
	if m := inline.FindString(files["index.html"].content); m != "" {
		t.Errorf("index.html has %q inline", m)
	}
	markup := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function`)
	remote := regexp.MustCompile(`(?i)(?:src|href|url\(|from|import)\s*[=(]?\s*["']?https?://`)
	named := regexp.MustCompile(`["'(](?:/assets/|\./)([a-z]+\.[a-z]+)["')]`)
	for name, f := range files {
		if m := markup.FindString(f.content); m != "" {
			t.Errorf("%s uses %s", name, m)
		}
		if m := remote.FindString(f.content); m != "" {
			t.Errorf("%s loads from elsewhere: %s", name, m)
		}
		for _, m := range named.FindAllStringSubmatch(f.content, -1) {
			if _, ok := files[m[1]]; !ok {
				t.Errorf("%s names %s, which is not embedded", name, m[1])
			}
		}
	}
}
