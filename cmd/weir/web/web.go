// Package web is the console that every node serves at "/": the network as
// its records show it, a page that publishes by WHIP and one that plays by
// WHEP. It is plain HTML, CSS and ES modules, embedded as they are written.
//
// The pages read GET /console/state and the server-sent events of
// /console/events, and talk WHIP and WHEP to /whip/ and /whep/; the node
// serves those.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed static
var static embed.FS

// securityPolicy lets a page load its own files and nothing else. Connections
// may leave for any node, because WHIP and WHEP follow a 307 to the node that
// has room. Trusted Types make the browser refuse every way of turning a
// string into markup, so that a region named "<img onerror=…>" stays text.
const securityPolicy = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; " +
	"img-src 'self'; media-src 'self' blob:; connect-src 'self' http: https:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types weir"

// contentTypes is complete on purpose: the system's MIME table differs from
// machine to machine, and a module with the wrong type does not run.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// file is one embedded file as it is served.
type file struct {
	content     string
	contentType string
	etag        string // strong: a hash of content
}

// Handler serves the console: "/", "/publish", "/play" and "/play/<stream>"
// are the same page, which reads its own address, and "/assets/" holds the
// files it loads. Everything else is 404, everything but GET and HEAD 405.
//
// Answers carry a strong ETag and must be revalidated, so that a browser shows
// the console of the release that the node runs now.
func Handler() http.Handler {
	files := load()
	page := files["index.html"]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := page, isPage(r.URL.Path)
		if name, asset := strings.CutPrefix(r.URL.Path, "/assets/"); asset {
			f, ok = files[name]
			ok = ok && name != "index.html"
		}
		serve(w, r, f, ok)
	})
}

// load reads the embedded files, by name. The embedded tree is part of the
// binary: what is wrong with it is wrong at build time, hence the panics.
func load() map[string]file {
	files := make(map[string]file)
	entries, err := fs.ReadDir(static, "static")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		b, err := fs.ReadFile(static, path.Join("static", e.Name()))
		if err != nil {
			panic(err)
		}
		contentType, ok := contentTypes[path.Ext(e.Name())]
		if !ok {
			panic(fmt.Sprintf("web: no content type for %s", e.Name()))
		}
		sum := sha256.Sum256(b)
		files[e.Name()] = file{
			content:     string(b),
			contentType: contentType,
			etag:        `"` + hex.EncodeToString(sum[:12]) + `"`,
		}
	}
	return files
}

func isPage(p string) bool {
	return p == "/" || p == "/publish" || p == "/play" || strings.HasPrefix(p, "/play/")
}

func serve(w http.ResponseWriter, r *http.Request, f file, ok bool) {
	h := w.Header()
	h.Set("Content-Security-Policy", securityPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(self), microphone=(self), display-capture=(self)")
	if !ok {
		http.Error(w, "no such page; the console is at /", http.StatusNotFound)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD are answered here", http.StatusMethodNotAllowed)
		return
	}
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	if matches(r.Header.Get("If-None-Match"), f.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.contentType)
	h.Set("Content-Length", strconv.Itoa(len(f.content)))
	if r.Method == http.MethodGet {
		// The client has gone if this fails, and nobody is left to tell.
		_, _ = w.Write([]byte(f.content))
	}
}

// matches reports whether an If-None-Match header names etag (RFC 9110,
// section 13.1.2: weak comparison, a list, or "*").
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == etag || tag == "*" {
			return true
		}
	}
	return false
}
