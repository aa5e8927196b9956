package web

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
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
			// A refusal has the same headers as a page.
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

// A name that a module imports and that is not exported breaks every page, and
// browsers say so only when they load it.
func TestModulesExportWhatIsImported(t *testing.T) {
	files := load()
	statement := regexp.MustCompile(`(?m)^import [^;]*;`)
	for name, f := range files {
		all := statement.FindAllString(f.content, -1)
		parsed := imported.FindAllStringSubmatch(f.content, -1)
		if strings.HasSuffix(name, ".js") && len(all) != len(parsed) {
			t.Errorf("%s has imports that are not written as the others: %q", name, all)
		}
		for _, m := range parsed {
			for _, want := range strings.FieldsFunc(m[1], func(r rune) bool { return strings.ContainsRune("{}, ", r) }) {
				if !slices.ContainsFunc(exported.FindAllStringSubmatch(files[m[2]+".js"].content, -1), func(e []string) bool { return e[2] == want }) {
					t.Errorf("%s imports %s, which %s.js does not export", name, want, m[2])
				}
			}
		}
	}
}

// The player is a single file for pages of every origin.
func TestPlayerModule(t *testing.T) {
	answer := func(header http.Header) *http.Response {
		r := httptest.NewRequest("GET", "/weir-player.js", nil)
		maps.Copy(r.Header, header)
		w := httptest.NewRecorder()
		Player().ServeHTTP(w, r)
		return w.Result()
	}
	res := answer(nil)
	for name, want := range map[string]string{
		"Content-Type": "text/javascript; charset=utf-8", "Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin",
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	source := body(t, res)
	if m := regexp.MustCompile(`(?m)^import |^export (function|class)|import\(`).FindString(source); m != "" {
		t.Errorf("the module has %q", m)
	}
	if !strings.HasSuffix(source, "\nexport const { WeirPlayer } = $player;\n") {
		t.Error("the module does not export the element's class")
	}
	// Each file comes after its imports, once.
	if at := strings.Index(source, "const $connection = "); at < strings.Index(source, "const $address = ") || at > strings.Index(source, "const $player = ") || strings.Count(source, "const $dom = ") != 1 {
		t.Error("the module's parts are not in the order of their need")
	}
	if res := answer(http.Header{"If-None-Match": {res.Header.Get("ETag")}}); res.StatusCode != http.StatusNotModified {
		t.Errorf("asked with its ETag the answer is %d, want 304", res.StatusCode)
	}
}

// Only the embed page may be framed, by the configured origins, and it may use
// none of the visitor's devices.
func TestEmbedMayBeFramed(t *testing.T) {
	for _, c := range []struct {
		path      string
		ancestors []string
		status    int
		want      string
	}{
		{"/embed/hall/one", []string{"*"}, 200, "*"},
		{"/embed/demo", []string{"'self'", "https://*.example.org"}, 200, "'self' https://*.example.org"},
		{"/assets/embed.js", []string{"*"}, 200, "*"},
		{"/assets/console.js", []string{"*"}, 404, "*"},
	} {
		w := httptest.NewRecorder()
		Embed(c.ancestors).ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
		res := w.Result()
		if _, got, _ := strings.Cut(res.Header.Get("Content-Security-Policy"), "; frame-ancestors "); got != c.want || res.StatusCode != c.status {
			t.Errorf("%s: %d, frame-ancestors %s; want %d, %s", c.path, res.StatusCode, got, c.status, c.want)
		}
		if got := res.Header.Get("Permissions-Policy"); !strings.Contains(got, "camera=(), microphone=()") {
			t.Errorf("%s: Permissions-Policy = %q", c.path, got)
		}
	}
	// All files that the page loads exist, and the list is complete.
	files := load()
	need := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		if need[name] {
			return
		}
		need[name] = true
		for _, m := range imported.FindAllStringSubmatch(files[name].content, -1) {
			add(m[2] + ".js")
		}
	}
	for _, m := range regexp.MustCompile(`"/assets/([a-z.]+)"`).FindAllStringSubmatch(files["embed.html"].content, -1) {
		add(m[1])
	}
	if got, want := slices.Sorted(slices.Values(EmbedAssets)), slices.Sorted(maps.Keys(need)); !slices.Equal(got, want) {
		t.Errorf("EmbedAssets = %q, want %q", got, want)
	}
	for _, path := range []string{"/", "/play/demo", "/publish", "/assets/console.js"} {
		if csp := get(t, "GET", path, nil).Header.Get("Content-Security-Policy"); !strings.HasSuffix(csp, "; frame-ancestors 'none'") {
			t.Errorf("%s may be framed: %q", path, csp)
		}
	}
}

// The policy allows no inline script or style, so the files must have none, and
// all files they refer to must be embedded too.
func TestFilesFitThePolicy(t *testing.T) {
	files := load()
	inline := regexp.MustCompile(`(?i)<style|<script(?:[^>]*)>[^<]|\sstyle\s*=|\son[a-z]+\s*=|javascript:`)
	for _, page := range []string{"index.html", "embed.html"} {
		if m := inline.FindString(files[page].content); m != "" {
			t.Errorf("%s has %q inline", page, m)
		}
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
