package eventlog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"weir/capacity/event"
	"weir/cmd/weir/logs"
)

// logged is the log line of e, without the time.
func logged(t *testing.T, e event.Event) string {
	t.Helper()
	var b bytes.Buffer
	log, err := logs.New(&b, new(slog.LevelVar), "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	h := NewHub(log)
	h.Add(e)
	_, text, _ := strings.Cut(strings.TrimSpace(b.String()), " ")
	return text
}

func TestLogLines(t *testing.T) {
	for name, c := range map[string]struct {
		e    event.Event
		want string
	}{
		"a publisher comes": {
			event.Event{Kind: event.SessionOpened, Stream: "demo", Session: "S1", Role: "publisher", Client: "192.0.2.1:4000"},
			`level=INFO msg="publisher session opened" stream=demo client=192.0.2.1:4000 session=S1`,
		},
		"a viewer leaves": {
			event.Event{Kind: event.SessionClosed, Stream: "demo", Session: "S2", Role: "viewer", Client: "192.0.2.1:4000", Detail: "deleted by the client", Elapsed: 90_500, Packets: 900, Lost: 3},
			`level=INFO msg="viewer session closed" stream=demo client=192.0.2.1:4000 detail="deleted by the client" after=1m31s packets=900 lost=3 session=S2`,
		},
		"nothing came of a publisher": {
			event.Event{Kind: event.SessionClosed, Stream: "demo", Role: "publisher"},
			`level=INFO msg="publisher session closed" stream=demo packets=0 lost=0`,
		},
		"a client is redirected": {
			event.Event{Kind: event.Redirected, Stream: "demo", Peer: "p", Name: "n2", Reason: "sessions"},
			`level=INFO msg="client redirected" stream=demo peer=n2 peer_id=` + shortPeer("p") + ` reason=sessions`,
		},
		"a node fills": {
			event.Event{Kind: event.NodeFull, Reason: "sessions", Detail: "9 of 10 sessions"},
			`level=WARN msg="node is full" reason=sessions detail="9 of 10 sessions"`,
		},
		"a peer's words cannot break the line": {
			event.Event{Kind: event.Refused, Reason: "x\x1b[2J\nlevel=ERROR"},
			"level=WARN msg=\"client refused\" reason=\"x\ufffd[2J level=ERROR\"",
		},
		"a pull fails": {
			event.Event{Kind: event.PullFailed, Stream: "demo", Detail: "no carrier answers"},
			`level=INFO msg="pull failed" stream=demo detail="no carrier answers"`,
		},
		"a player asks for what is not live": {event.Event{Kind: event.PullFailed, Stream: "demo", Reason: event.NotLive}, ""},
		"a step between is for debugging":    {event.Event{Kind: event.PullStarted, Stream: "demo"}, ""},
		"a kind without a message of its own": {
			event.Event{Kind: "something.new", Detail: "d"}, "level=INFO msg=something.new detail=d",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := logged(t, c.e); got != c.want {
				t.Errorf("the log says\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func shortPeer(s string) string { return event.Event{Peer: "p"}.Peer.String() }

// Every kind of event must have a sentence in the log.
func TestEveryKindHasAMessage(t *testing.T) {
	for _, d := range event.List() {
		if _, msg := Message(event.Event{Kind: d.Kind}); msg == string(d.Kind) {
			t.Errorf("%s has no message", d.Kind)
		}
	}
}

// Secrets must not reach a log, also if they come in an error.
func TestSecretsAreNotLogged(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var b bytes.Buffer
		log, err := logs.New(&b, new(slog.LevelVar), "debug", format)
		if err != nil {
			t.Fatal(err)
		}
		secret := "CkUKFGFiY2RlZg_-"
		at := "http://10.0.0.7:8080/whep/demo?ticket=" + secret + "&wait=5s"
		log.Warn("request failed", "err", fmt.Errorf("the helper: %w", &url.Error{Op: "Post", URL: at, Err: errors.New("refused")}))
		log.With("at", at).WithGroup("g").Info("again", "url", at, "nested", slog.GroupValue(slog.String("u", at)))
		if strings.Contains(b.String(), secret) {
			t.Errorf("%s: the ticket is in the log: %s", format, &b)
		}
		if !strings.Contains(b.String(), "wait=5s") || !strings.Contains(b.String(), "refused") {
			t.Errorf("%s: more than the ticket is missing: %s", format, &b)
		}
	}
}

func TestLinesAreLimited(t *testing.T) {
	var l lineLimit
	start := time.Now()
	redirect := lineSort{event.Redirected, "sessions"}
	passed := 0
	for range 500 {
		if l.pass(start, redirect) {
			passed++
		}
	}
	if passed != limitClients {
		t.Errorf("%d lines of 500 redirects, want %d", passed, limitClients)
	}
	if !l.pass(start, lineSort{event.Redirected, "uplink"}) {
		t.Error("another reason is not told")
	}
	if due := l.due(start.Add(limitWindow / 2)); len(due) != 0 {
		t.Errorf("told too early: %v", due)
	}
	due := l.due(start.Add(limitWindow))
	if len(due) != 1 || due[0].Attrs[0].Value.Int64() != 499 {
		t.Errorf("what was left out is told as %v, want 499", due)
	}
	if !l.pass(start.Add(limitWindow), redirect) {
		t.Error("nothing is told in the next window")
	}
	for i := range 10_000 {
		l.pass(start, lineSort{event.Refused, fmt.Sprint("word", i)})
	}
	if len(l.sorts) > limitKeys+1 {
		t.Errorf("%d sorts of lines are remembered", len(l.sorts))
	}
}
