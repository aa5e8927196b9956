// Package web is the console that every node serves at "/": the network as
// shown by its records, a page that publishes by WHIP and one that plays by
// WHEP. For pages of other sites it has the module that defines <weir-player>,
// and a page to be framed. It is plain HTML, CSS and ES modules, embedded as
// they are written.
//
// The pages read GET /console/state and the server-sent events of
// /console/events, and use WHIP and WHEP at /whip/ and /whep/; the node serves
// those.
package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

//go:embed static
var static embed.FS

// securityPolicy lets a page load its own files and nothing else. Connections
// may go to any node, because WHIP and WHEP follow a 307 to a node with room.
// Trusted Types make the browser refuse every way of turning a string into
// markup, so that a region named "<img onerror=…>" stays text. The directive
// frame-ancestors is appended.
const securityPolicy = "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; " +
	"img-src 'self'; media-src 'self' blob:; connect-src 'self' http: https:; " +
	"base-uri 'none'; form-action 'none'; " +
	"require-trusted-types-for 'script'; trusted-types weir; frame-ancestors "

// contentTypes is complete on purpose: the system's MIME table differs from
// machine to machine, and a module with the wrong type does not run.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// file is one embedded file, as served.
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
			ok = ok && path.Ext(name) != ".html"
		}
		h := guard(w, "'none'")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(self), microphone=(self), display-capture=(self)")
		serve(w, r, f, ok)
	})
}

// EmbedAssets are the files that the page of [Embed] loads.
var EmbedAssets = []string{"embed.css", "embed.js", "address.js", "connection.js", "dom.js", "format.js", "meter.js", "player.js", "icon.svg"}

// Embed serves "/embed/<stream>", a page with the player of the stream and
// nothing else, and the [EmbedAssets] below "/assets/".
//
// The page may be framed by ancestors, the sources of the policy's
// frame-ancestors (CSP level 3, section 6.4.2). It has no authority: it has no
// token and no cookie, uses no device, and can only play the stream in its
// address.
func Embed(ancestors []string) http.Handler {
	files := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f, ok := files["embed.html"], strings.HasPrefix(r.URL.Path, "/embed/")
		if name, asset := strings.CutPrefix(r.URL.Path, "/assets/"); asset {
			f, ok = files[name]
			ok = ok && slices.Contains(EmbedAssets, name)
		}
		h := guard(w, strings.Join(ancestors, " "))
		h.Set("Permissions-Policy", "camera=(), microphone=(), display-capture=(), geolocation=()")
		serve(w, r, f, ok)
	})
}

// Player serves the module that defines <weir-player>, to pages of every origin.
func Player() http.Handler {
	f := file{content: module(load(), "player.js"), contentType: contentTypes[".js"]}
	f.etag = etagOf(f.content)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
		serve(w, r, f, true)
	})
}

var (
	imported = regexp.MustCompile(`(?m)^import (?:(\{[^}]*\}) from )?'\./([a-z]+)\.js';.*\n`)
	exported = regexp.MustCompile(`(?m)^export ((?:async )?(?:function|class|const) (\w+))`)
)

// module combines a file and its imports into one file without imports, so that
// a page needs one address and may keep a copy. Each file becomes a function's
// body that returns its exports.
func module(files map[string]file, entry string) string {
	var all strings.Builder
	done := map[string]bool{}
	names := func(name string) (of []string) {
		for _, m := range exported.FindAllStringSubmatch(files[name].content, -1) {
			of = append(of, m[2])
		}
		return of
	}
	var add func(name string)
	add = func(name string) {
		if done[name] {
			return
		}
		done[name] = true
		source := files[name].content
		for _, m := range imported.FindAllStringSubmatch(source, -1) {
			add(m[2] + ".js")
		}
		source = imported.ReplaceAllString(source, "const $1 = $$$2;\n")
		source = exported.ReplaceAllString(source, "$1")
		fmt.Fprintf(&all, "const $%s = (() => {\n%s\nreturn { %s };\n})();\n", strings.TrimSuffix(name, ".js"), source, strings.Join(names(name), ", "))
	}
	add(entry)
	fmt.Fprintf(&all, "export const { %s } = $%s;\n", strings.Join(names(entry), ", "), strings.TrimSuffix(entry, ".js"))
	return all.String()
}

// load reads the embedded files, by name. The embedded tree is part of the
// binary: its mistakes are mistakes of the build, hence the panics.
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
		files[e.Name()] = file{
			content:     string(b),
			contentType: contentType,
			etag:        etagOf(string(b)),
		}
	}
	return files
}

func etagOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}

func isPage(p string) bool {
	return p == "/" || p == "/publish" || p == "/play" || strings.HasPrefix(p, "/play/")
}

// guard sets the headers that every page and file of the console has.
func guard(w http.ResponseWriter, ancestors string) http.Header {
	h := w.Header()
	h.Set("Content-Security-Policy", securityPolicy+ancestors)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	return h
}

func serve(w http.ResponseWriter, r *http.Request, f file, ok bool) {
	h := w.Header()
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
		// If this fails the client has gone, so there is no one to report to.
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
