package show

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/mattn/go-runewidth"

	"weir/capacity"
	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/cmd/weir/names"
	"weir/sfu"
)

// someTop is the data of a node with n of everything.
func someTop(n int) topData {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := topData{at: at, status: api.Status{
		Name: "n1", PeerID: "p1", State: capacity.Full, Stress: 0.93, Uptime: 61_000, Peers: n,
		Record: capacity.Record{Sessions: capacity.Usage{Used: 9, Limit: 10}, Uplink: capacity.Usage{Used: 5e7, Limit: 1e9}, CPU: 0.4},
	}}
	byID := map[peer.ID]string{}
	for i := range n {
		id := peer.ID(fmt.Sprint("node", i))
		byID[id] = fmt.Sprintf("n%d", i+1)
		d.nodes = append(d.nodes, api.Record{Node: id, Valid: true, Record: &capacity.Record{
			Node: id, Name: byID[id], URL: "http://192.0.2.1:8080", Region: "eu", Sessions: capacity.Usage{Used: int64(i), Limit: 100},
		}})
		d.streams = append(d.streams, api.Stream{Stream: fmt.Sprint("stream", i), Tracks: []string{"video/VP8"}, Carriers: []api.Carrier{{Node: id, Name: byID[id], Origin: true}}})
		d.links = append(d.links, sfu.LinkStatus{Peer: id, State: "connected"})
		d.sessions = append(d.sessions, sfu.SessionStatus{ID: fmt.Sprintf("%08dSESSION", i), Stream: "stream0", Kind: "whep", Since: at.Add(-time.Minute), State: "connected"})
		d.events = append(d.events, event.Event{Time: at, Kind: event.Redirected, Peer: id, Detail: strings.Repeat("why \x1b[2J ", 20)})
	}
	d.known = names.New(byID)
	return d
}

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

func TestTopFitsTheScreen(t *testing.T) {
	for _, size := range [][2]int{{80, 24}, {120, 40}, {60, 10}, {80, 5}, {80, 1}} {
		for _, n := range []int{0, 1, 3, 50} {
			for part := range topParts {
				for _, alone := range []bool{false, true} {
					m := topModel{data: someTop(n), color: true, part: part, alone: alone, skip: n / 2}
					m.now = m.data.at
					sized, _ := m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
					view := sized.(topModel).text()
					lines := strings.Split(view, "\n")
					if len(lines) > size[1] {
						t.Fatalf("%d of everything at %v: %d lines", n, size, len(lines))
					}
					for _, line := range lines {
						plain := colours.ReplaceAllString(line, "")
						if w := runewidth.StringWidth(plain); w > size[0] {
							t.Fatalf("%d of everything at %v: %d columns: %q", n, size, w, plain)
						}
						if strings.Contains(plain, "\x1b") {
							t.Fatalf("a peer's word steers the terminal: %q", plain)
						}
					}
				}
			}
		}
	}
}

func TestTopShows(t *testing.T) {
	m := topModel{data: someTop(3), width: 80, height: 40}
	m.now = m.data.at
	view := m.text()
	for _, want := range []string{"n1  full  stress 0.93  up 1m1s", "9 of 10", "NODES (3)", "STREAMS (3)", "LINKS (3)", "SESSIONS (3)", "EVENTS (3)", "stream2", "00000001", "q quit"} {
		if !strings.Contains(view, want) {
			t.Errorf("it does not show %q:\n%s", want, view)
		}
	}
	if strings.Index(view, "n3 ") > strings.Index(view, "n2 ") {
		t.Errorf("the fullest node is not the first:\n%s", view)
	}
}

// Old data must be marked as old, and a node that does not answer must not
// empty the screen.
func TestTopWhenTheNodeIsGone(t *testing.T) {
	m := topModel{data: someTop(1), width: 80, height: 30}
	gone, _ := m.Update(topResult{err: errors.New("no node answers")})
	later, _ := gone.Update(topTick(m.data.at.Add(7 * time.Second)))
	if view := later.(topModel).text(); !strings.Contains(view, "no answer for 7s") || !strings.Contains(view, "NODES (1)") {
		t.Errorf("it shows\n%s", view)
	}
	back, _ := later.Update(topResult{data: someTop(2)})
	if view := back.(topModel).text(); strings.Contains(view, "no answer") || !strings.Contains(view, "NODES (2)") {
		t.Errorf("back again, it shows\n%s", view)
	}
	never, _ := topModel{width: 80, height: 30}.Update(topResult{err: errors.New("no node \x1b answers")})
	if view := never.(topModel).text(); !strings.Contains(view, "no node") || strings.Contains(view, "\x1b") {
		t.Errorf("without any answer it shows %q", view)
	}
}

func TestTopKeys(t *testing.T) {
	var m tea.Model = topModel{data: someTop(50), width: 80, height: 24}
	press := func(keys ...rune) {
		for _, k := range keys {
			m, _ = m.Update(tea.KeyPressMsg{Code: k})
		}
	}
	press(tea.KeyTab, tea.KeyTab, tea.KeyTab, tea.KeyEnter)
	if view := m.(topModel).text(); !strings.Contains(view, "SESSIONS (50)") || strings.Contains(view, "NODES") {
		t.Errorf("the sessions alone:\n%s", view)
	}
	before := m.(topModel).text()
	press(tea.KeyDown, tea.KeyDown)
	if m.(topModel).text() == before {
		t.Error("the arrows do not scroll")
	}
	press(tea.KeyUp, tea.KeyUp, tea.KeyUp)
	if m.(topModel).text() != before {
		t.Error("the arrows do not scroll back")
	}
	_, cmd := m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"})
	if cmd == nil {
		t.Fatal("q does nothing")
	}
	if _, ok := cmd().(tea.QuitMsg); !ok {
		t.Error("q does not quit")
	}
}
