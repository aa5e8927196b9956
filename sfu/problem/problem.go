// Package problem is the error format of weir's HTTP APIs: problem JSON (RFC
// 9457) with a stable code for programs beside a sentence for people.
//
// A [Problem] is an error. [Of] extracts it from another error, so that the
// text of Go errors, with the URLs and tickets in them, does not reach people.
package problem

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity/tracing"
)

// ContentType is the Content-Type of a problem (RFC 9457, section 3).
const ContentType = "application/problem+json"

const (
	// typePrefix turns a code into the URI that RFC 9457 calls the problem's
	// type.
	typePrefix = "urn:weir:problem:"
	// maxBody bounds the bytes read of a problem: one problem has all mistakes
	// of a policy.
	maxBody = 64 << 10
)

// A Problem describes the error of one request. It is an error, whose text is
// Detail.
type Problem struct {
	Type   string `json:"type"` // a URI that ends with the code
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"` // the error in this case, and the remedy
	Code   Code   `json:"code"`

	RetryAfter int     `json:"retry_after,omitempty"` // seconds; also in the header Retry-After
	Stream     string  `json:"stream,omitempty"`
	Node       peer.ID `json:"node,omitempty"`    // another node that the problem is about
	Reason     string  `json:"reason,omitempty"`  // of a refusal: the exhausted resource, or the policy's rule
	Request    string  `json:"request,omitempty"` // ID of the request in the node's log
	// TraceID is the trace ID of the request, in the logs and events of its
	// node and of the nodes that were asked for it.
	TraceID string `json:"trace_id,omitempty"`
}

// New returns a problem with the code's status and title.
func New(code Code, detail string) *Problem {
	kind := kinds[code]
	return &Problem{Type: typePrefix + string(code), Title: kind.title, Status: kind.status, Detail: detail, Code: code}
}

// Retry sets the time after which to try again, in whole seconds, rounded up,
// and returns p. If d is 0 or less it changes nothing.
func (p *Problem) Retry(d time.Duration) *Problem {
	if d > 0 {
		p.RetryAfter = int(math.Ceil(d.Seconds()))
	}
	return p
}

// Of returns the problem in err, or nil.
func Of(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	return nil
}

// Error returns Detail, or the title if there is none.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Title
	}
	return p.Detail
}

// Write answers a request with p, on one line. If w already has the request's
// trace, by [tracing.Header], so does the problem.
func (p *Problem) Write(w http.ResponseWriter) {
	if id := tracing.InHeader(w.Header()); id != "" {
		named := *p // copied: other requests may share it
		named.TraceID = id
		p = &named
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // for terminals; nosniff protects browsers
	if e.Encode(p) != nil {
		panic("problem: does not marshal")
	}
	h := w.Header()
	h.Set("Content-Type", ContentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Length")
	if p.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(b.Bytes())
}

// Read returns the problem in a server's answer. If the body is no problem, for
// example from another server, it becomes the detail, and the code is empty.
// Read reads a bounded part of resp.Body and does not close it.
func Read(resp *http.Response) *Problem {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return Parse(resp.StatusCode, resp.Header.Get("Content-Type"), body)
}

// Parse is [Read] for a body that has been read.
func Parse(status int, contentType string, body []byte) *Problem {
	var p Problem
	if t, _, err := mime.ParseMediaType(contentType); err == nil && t == ContentType && json.Unmarshal(body, &p) == nil {
		p.Status = status // the status in the body is for readers of the body only
		p.Title, p.Detail, p.Reason = clean(p.Title), clean(p.Detail), clean(p.Reason)
		if _, err := trace.TraceIDFromHex(p.TraceID); err != nil {
			p.TraceID = ""
		}
		return &p
	}
	return &Problem{Title: http.StatusText(status), Status: status, Detail: clean(string(body))}
}

// clean makes a server's text printable: valid and without escape sequences. It
// may have several lines, such as the mistakes in a policy.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return strings.TrimSpace(s)
}

// Mux answers requests without a handler in mux with problems, too, where
// [http.ServeMux] would answer with text.
func Mux(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern != "" {
			mux.ServeHTTP(w, r) // not h, which lacks the path values
			return
		}
		seen := discard{header: http.Header{}}
		h.ServeHTTP(&seen, r)
		if seen.status == http.StatusMethodNotAllowed {
			allowed := seen.header.Get("Allow")
			w.Header().Set("Allow", allowed)
			New(BadMethod, r.Method+" is not served here: use "+allowed).Write(w)
			return
		}
		New(NotFound, "there is nothing at "+r.URL.Path).Write(w)
	})
}

// discard records only the status and header of an answer.
type discard struct {
	header http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(status int)      { d.status = status }
