package problem

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"weir/capacity/tracing"
)

// Every code in code.go has its own sentence, status and title.
func TestCodes(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "code.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var declared []Code
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			text, _ := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			declared = append(declared, Code(text))
			if !strings.HasPrefix(v.Doc.Text(), v.Names[0].Name+": ") {
				t.Errorf("%s has no comment that begins with its name", v.Names[0])
			}
		}
	}
	slices.Sort(declared)
	if !slices.Equal(declared, Codes()) {
		t.Errorf("declared are %v, in the table are %v", declared, Codes())
	}
	titles := map[string]Code{}
	for code, kind := range kinds {
		if kind.status < 400 || kind.title == "" || titles[kind.title] != "" {
			t.Errorf("%s: %d, %q, as %s", code, kind.status, kind.title, titles[kind.title])
		}
		titles[kind.title] = code
	}
}

func TestWriteAndRead(t *testing.T) {
	p := New(NoCapacity, `no "room" <here>`).Retry(1200 * time.Millisecond)
	p.Reason, p.Stream = "sessions", "demo"
	w := httptest.NewRecorder()
	w.Header().Set(tracing.Header, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")
	p.Write(w)
	const want = `{"type":"urn:weir:problem:no-capacity","title":"There is no room","status":503,"detail":"no \"room\" <here>","code":"no-capacity","retry_after":2,"stream":"demo","reason":"sessions","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"}` + "\n"
	if w.Body.String() != want || w.Code != 503 || w.Header().Get("Retry-After") != "2" || w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("wrote %d %v\n%swant\n%s", w.Code, w.Header(), w.Body, want)
	}
	if p.TraceID != "" {
		t.Error("what others may be told the same has been changed")
	}
	p.TraceID = "4bf92f3577b34da6a3ce929d0e0e4736"
	if got := Read(w.Result()); *got != *p {
		t.Errorf("read %+v, wrote %+v", got, p)
	}
}

func TestParseWhatIsNoProblem(t *testing.T) {
	for _, c := range []struct{ name, contentType, body, want string }{
		{"text of another server", "text/plain", " busy \n", "busy"},
		{"a problem cut short", ContentType, `{"detail":"x`, `{"detail":"x`},
		{"escape sequences", ContentType, `{"detail":"\u001b[31mred\u009b0m"}`, "[31mred0m"},
		{"a trace that is none", ContentType, `{"detail":"x","trace_id":"\u001b[31m"}`, "x"},
		{"nothing", "", "", "Service Unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Parse(503, c.contentType, []byte(c.body)); got.Error() != c.want || got.Status != 503 || got.Code != "" || got.TraceID != "" {
				t.Errorf("got %+v, want %q", got, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(ContentType, []byte(`{"detail":"x","status":1,"node":"12D3"}`))
	f.Add("text/plain", []byte("\x1b[2J\xff"))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		p := Parse(503, contentType, body)
		if strings.ContainsFunc(p.Error(), func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' || r == 0x7f }) {
			t.Errorf("%q has control characters", p.Error())
		}
	})
}

// Network errors are described in words, without a URL.
func TestCause(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }))
	defer cut.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	l.Close() // last, so that no other process gets the port
	late, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()

	for _, c := range []struct {
		name, url, want string
		ctx             context.Context
	}{
		{"nothing listens", closed, "refused", t.Context()},
		{"it hangs up", cut.URL, "closed the connection", t.Context()},
		{"a name that is none", "http://weir.invalid", "weir.invalid", t.Context()},
		{"too late", cut.URL, "in time", late},
		{"TLS to plain HTTP", strings.Replace(cut.URL, "http:", "https:", 1), "try http", t.Context()},
		{"a certificate of its own", secure.URL, "certificate", t.Context()},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(c.ctx, "GET", c.url+"/?ticket=secret", nil)
			if err != nil {
				t.Fatal(err)
			}
			_, err = http.DefaultClient.Do(req)
			if err == nil {
				t.Fatal("no error")
			}
			said := Cause(fmt.Errorf("wrapped: %w", err))
			if !strings.Contains(said, c.want) || strings.Contains(said, "secret") {
				t.Errorf("%q, want a word of %q", said, c.want)
			}
			if text := WithoutURL(err).Error(); strings.Contains(text, "secret") {
				t.Errorf("WithoutURL: %q", text)
			}
		})
	}
	if said := Cause(errors.New("sql: no rows")); said != "the connection failed" {
		t.Errorf("an unknown error is shown: %q", said)
	}
}

func TestMux(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /a/{x}", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.PathValue("x")) })
	h := Mux(mux)
	for _, c := range []struct {
		method, path string
		status       int
		want         string
	}{
		{"GET", "/a/b", 200, "b"},
		{"GET", "/b", 404, `"code":"not-found"`},
		{"POST", "/a/b", 405, `"code":"bad-method"`},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.want) || c.status == 405 && w.Header().Get("Allow") == "" {
			t.Errorf("%s %s: %d %v %s", c.method, c.path, w.Code, w.Header(), w.Body)
		}
	}
}
