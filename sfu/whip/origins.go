package whip

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const allowOrigin = "Access-Control-Allow-Origin"

// Origins are the origins whose pages may publish and view here (CORS). The
// zero Origins allow all.
//
// They restrict browsers only: other clients may send any Origin, or none.
type Origins struct{ list []string }

// ParseOrigins parses origins as browsers send them, for example
// https://www.example.org; an empty list, or "*" alone, allows all.
func ParseOrigins(list []string) (Origins, error) {
	var o Origins
	for _, s := range list {
		if s == "*" && len(list) == 1 {
			return Origins{}, nil
		}
		origin, err := parseOrigin(s)
		if err != nil {
			return Origins{}, fmt.Errorf("%q: %w", s, err)
		}
		o.list = append(o.list, origin)
	}
	return o, nil
}

// parseOrigin returns s as browsers write it (RFC 6454, section 6.2).
func parseOrigin(s string) (string, error) {
	const want = "want an origin such as https://www.example.org or http://localhost:3000"
	if s == "*" {
		return "", fmt.Errorf("* is every origin, and others stand beside it: give * alone, or the others")
	}
	if strings.Contains(s, "*") {
		return "", fmt.Errorf("origins have no patterns: name each one")
	}
	if s == "null" {
		return "", fmt.Errorf("null is the origin of every sandboxed page and file: %s", want)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil:
		return "", fmt.Errorf("%s", want)
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(s, "?") || strings.HasSuffix(s, "#"):
		return "", fmt.Errorf("an origin ends with its host and port: write %s://%s", u.Scheme, u.Host)
	}
	for _, c := range u.Host {
		if c > 127 || c <= ' ' {
			return "", fmt.Errorf("browsers write the host in ASCII (xn--…): %s", want)
		}
	}
	host := strings.ToLower(u.Host)
	switch port := u.Port(); {
	case strings.HasSuffix(host, ":"), u.Scheme == "http" && port == "80", u.Scheme == "https" && port == "443":
		host = host[:strings.LastIndexByte(host, ':')]
	}
	return u.Scheme + "://" + host, nil
}

// allow sets the headers in w by which a browser lets r's page read the answer,
// and reports whether the page may.
func (o Origins) allow(w http.ResponseWriter, r *http.Request) bool {
	h := w.Header()
	if o.list == nil {
		h.Set(allowOrigin, "*")
		return true
	}
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !slices.Contains(o.list, origin) && !vouchedFor(r) {
		return false
	}
	h.Set(allowOrigin, origin)
	return true
}

// vouchedFor reports whether r's page was allowed before: it was redirected
// here with a ticket, or knows the URL of a session. Browsers do not reveal
// that page: its origin is "null" after a redirect from one node to another
// (Fetch standard, HTTP-redirect fetch), or is the origin of the other node for
// a page from there. A forged ticket or URL only lets a page read that it is
// wrong.
func vouchedFor(r *http.Request) bool {
	return r.URL.Query().Has("ticket") || strings.HasPrefix(r.URL.Path, "/session/")
}
