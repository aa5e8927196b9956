package media

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weir/sfu/client"
)

func TestURLsOf(t *testing.T) {
	for _, c := range []struct {
		name              string
		args, files, urls []string
	}{
		{"a URL", []string{"http://a/whep/x"}, nil, []string{"http://a/whep/x"}},
		{"without a scheme", []string{"127.0.0.1:8080/whep/x"}, nil, []string{"http://127.0.0.1:8080/whep/x"}},
		{"IPv6 without a scheme", []string{"[::1]:8080/whep/x"}, nil, []string{"http://[::1]:8080/whep/x"}},
		{"a name without a scheme", []string{"edge.example.org/whep/x"}, nil, []string{"http://edge.example.org/whep/x"}},
		{"several, one twice", []string{"localhost:1/whep/x", "https://b/whep/x", "http://localhost:1/whep/x"}, nil, []string{"https://b/whep/x", "http://localhost:1/whep/x"}},
		{"files before", []string{"a.ivf", "b.ogg", "http://a/whip/x", "b:80/whip/x"}, []string{"a.ivf", "b.ogg"}, []string{"http://a/whip/x", "http://b:80/whip/x"}},
		{"a file with a path", []string{"./clips/a.ivf", "http://a/whip/x"}, []string{"./clips/a.ivf"}, []string{"http://a/whip/x"}},
		{"no URL at all", []string{"demo"}, nil, []string{"demo"}}, // the client reports the mistake
	} {
		t.Run(c.name, func(t *testing.T) {
			files, urls, err := urlsOf(c.args)
			if err != nil || !slices.Equal(files, c.files) || !slices.Equal(urls, c.urls) {
				t.Errorf("got %q, %q, %v; want %q, %q", files, urls, err, c.files, c.urls)
			}
		})
	}
	if _, _, err := urlsOf(make([]string, 1)); err != nil {
		t.Error(err)
	}
}

// All servers are tried in turn, ever less often, the lost one last; a final
// refusal ends the tries.
func TestCourseConnects(t *testing.T) {
	refused := func(status int) error { return &client.Refused{Status: status} }
	for _, c := range []struct {
		name  string
		last  string
		fails map[string]error // of each URL; nil: it serves from 20 s on
		limit time.Duration
		want  error
		order []string // of the first round
		most  int      // attempts
	}{
		{"they come back", "http://a", map[string]error{"http://a": refused(503), "http://b": nil, "http://c": client.ErrNoConnection}, time.Minute, nil, []string{"http://b", "http://c", "http://a"}, 60},
		{"where it was redirected to", "http://d?ticket=x", map[string]error{"http://a": client.ErrNoConnection, "http://b": client.ErrNoConnection, "http://c": client.ErrNoConnection, "http://d": nil}, time.Minute, nil, []string{"http://a", "http://b", "http://c", "http://d"}, 60},
		{"in vain", "", map[string]error{"http://a": client.ErrNoConnection, "http://b": client.ErrNoConnection, "http://c": client.ErrNoConnection}, time.Minute, client.ErrNoConnection, []string{"http://a", "http://b", "http://c"}, 100},
		{"refused for good", "", map[string]error{"http://a": refused(403), "http://b": refused(406), "http://c": refused(404)}, time.Minute, refused(404), []string{"http://a", "http://b", "http://c"}, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var asked []string
				f := &course{what: "view", urls: []string{"http://a", "http://b", "http://c"}, last: c.last,
					report: &reporter{out: io.Discard, log: slog.New(slog.DiscardHandler)}}
				f.open = func(_ context.Context, url string) (mediaConn, error) {
					asked = append(asked, url)
					if err := c.fails[url]; err != nil {
						return mediaConn{}, err
					}
					if time.Since(start) < 20*time.Second {
						return mediaConn{}, client.ErrNoConnection
					}
					return mediaConn{}, nil
				}
				_, err := f.connect(t.Context(), c.limit, worthRetrying)
				var got, want *client.Refused
				if errors.As(c.want, &want) {
					if !errors.As(err, &got) || got.Status != want.Status {
						t.Errorf("got %v, want %v", err, c.want)
					}
				} else if !errors.Is(err, c.want) {
					t.Errorf("got %v, want %v", err, c.want)
				}
				if !slices.Equal(asked[:len(c.order)], c.order) || len(asked) > c.most {
					t.Errorf("asked %d times, %v first; want %v first, and %d at most", len(asked), asked[:len(c.order)], c.order, c.most)
				}
				if took := time.Since(start); took > c.limit {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}
