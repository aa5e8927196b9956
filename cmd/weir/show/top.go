package show

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/mattn/go-runewidth"
	"github.com/urfave/cli/v2"

	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
	"weir/sfu"
)

const (
	// topPause is the time between two reads.
	topPause = time.Second
	// topStale is the age from which the shown data is marked as old.
	topStale = 5 * time.Second
)

// topData is the data that weir top shows: a node's answers at one time.
type topData struct {
	at       time.Time
	status   api.Status
	nodes    []api.Record
	streams  []api.Stream
	links    []sfu.LinkStatus
	sessions []sfu.SessionStatus
	events   []event.Event
	known    names.Names
	unknown  []string // parts that could not be read, with reasons
}

// A topPart is one of the lists below the header.
type topPart int

const (
	topNodes topPart = iota
	topStreams
	topLinks
	topSessions
	topEvents
	topParts
)

func (p topPart) String() string {
	return [...]string{"nodes", "streams", "links", "sessions", "events"}[p]
}

// topModel is the state of the screen: a pure function of messages.
type topModel struct {
	now           time.Time
	data          topData // zero: no data yet
	err           error   // why there is no newer data
	width, height int
	color         bool
	alone         bool    // part has the whole screen
	part          topPart // the one that keys scroll
	skip          int     // lines scrolled past

	fetch func() (topData, error)
}

type (
	topTick   time.Time
	topResult struct {
		data topData
		err  error
	}
)

// Init implements tea.Model.
func (m topModel) Init() tea.Cmd { return tea.Batch(m.look, tick()) }

func (m topModel) look() tea.Msg {
	data, err := m.fetch()
	return topResult{data, err}
}

func tick() tea.Cmd { return tea.Tick(topPause, func(t time.Time) tea.Msg { return topTick(t) }) }

// Update implements tea.Model.
func (m topModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case topTick:
		m.now = time.Time(msg)
		return m, tick()
	case topResult:
		m.err = msg.err
		if msg.err == nil {
			m.data, m.now = msg.data, msg.data.at
		}
		return m, tea.Sequence(tea.Tick(topPause, func(time.Time) tea.Msg { return nil }), m.look)
	case tea.KeyPressMsg:
		switch msg.String() {
		case "q", "ctrl+c", "esc":
			if m.alone && msg.String() == "esc" {
				m.alone, m.skip = false, 0
				return m, nil
			}
			return m, tea.Quit
		case "tab", "right", "l":
			m.part, m.skip = (m.part+1)%topParts, 0
		case "shift+tab", "left", "h":
			m.part, m.skip = (m.part+topParts-1)%topParts, 0
		case "1", "2", "3", "4", "5":
			m.part, m.skip, m.alone = topPart(msg.String()[0]-'1'), 0, true
		case "enter", "space":
			m.alone, m.skip = !m.alone, 0
		case "down", "j":
			m.skip++
		case "up", "k":
			m.skip = max(0, m.skip-1)
		case "pgdown":
			m.skip += max(1, m.height/2)
		case "pgup":
			m.skip = max(0, m.skip-max(1, m.height/2))
		}
	}
	return m, nil
}

// View implements tea.Model.
func (m topModel) View() tea.View {
	v := tea.NewView(m.text())
	v.AltScreen = true
	return v
}

// text renders the whole screen.
func (m topModel) text() string {
	w := term.Terminal{Width: m.width, Color: m.color}
	if m.data.at.IsZero() {
		if m.err != nil {
			return term.Printable(m.err.Error()) + "\n\nTrying on; q ends."
		}
		return "asking the node …"
	}
	lines := m.head(w)
	room := max(0, m.height-len(lines)-1) // the last line shows the keys
	parts := []topPart{m.part}
	if !m.alone {
		parts = []topPart{topNodes, topStreams, topLinks, topSessions, topEvents}
	}
	bodies := make([][]string, len(parts))
	for i, p := range parts {
		bodies[i] = m.list(w, p)
	}
	shares := shareLines(bodies, room)
	for i, p := range parts {
		if shares[i] == 0 {
			continue
		}
		skip := 0
		if p == m.part {
			skip = m.skip
		}
		lines = append(lines, m.window(w, p, bodies[i], shares[i], skip)...)
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	keys := "q quit · tab next list · enter that list alone · ↑↓ scroll"
	if m.width > 0 {
		keys = runewidth.Truncate(keys, m.width, "…")
	}
	lines = append(lines[:max(0, min(len(lines), m.height-1))], w.Paint(term.Faint, keys))
	return strings.Join(lines, "\n")
}

// head is the node's own header, in three lines.
func (m topModel) head(w term.Terminal) []string {
	s := m.data.status
	r := s.Record
	age := ""
	if old := m.now.Sub(m.data.at); m.err != nil || old > topStale {
		age = "  " + w.Paint(term.Bad, fmt.Sprintf("no answer for %v", max(old, 0).Round(time.Second)))
	}
	first := fmt.Sprintf("%s  %s  stress %.2f  up %v%s", w.Paint(term.Strong, cmp.Or(s.Name, names.Short(s.PeerID))),
		w.Paint(term.StateOf(s.State).Style, s.State.String()), s.Stress, (time.Duration(s.Uptime) * time.Millisecond).Round(time.Second), age)
	second := fmt.Sprintf("sessions %s  uplink %s of %s  cpu %.0f %%  %s", term.Used(r.Sessions.Used, r.Sessions.Limit),
		term.Bitrate(r.Uplink.Used), term.Bitrate(r.Uplink.Limit), 100*r.CPU, term.Count(s.Peers, "peer", "peers"))
	if w.Width > 0 {
		second = runewidth.Truncate(second, w.Width, "…")
	}
	lines := []string{first, second}
	if len(m.data.unknown) > 0 {
		text := term.Printable("not known: " + strings.Join(m.data.unknown, "; "))
		if w.Width > 0 {
			text = runewidth.Truncate(text, w.Width, "…")
		}
		lines = append(lines, w.Paint(term.Warn, text))
	}
	return append(lines, "")
}

// shareLines divides room among lists, each of which needs its rows, a title
// and a blank line. Lines that one does not need go to the others.
func shareLines(bodies [][]string, room int) []int {
	shares := make([]int, len(bodies))
	for room > 0 {
		gave := false
		for i, b := range bodies {
			if room > 0 && shares[i] < len(b)+2 {
				shares[i]++
				room--
				gave = true
			}
		}
		if !gave {
			break
		}
	}
	return shares
}

// window renders a list in a given number of lines: a title, its header, and as
// many rows as fit, starting after skip.
func (m topModel) window(w term.Terminal, p topPart, body []string, lines, skip int) []string {
	title := strings.ToUpper(p.String())
	st := term.Faint
	if p == m.part {
		st = term.Strong
	}
	rows := max(0, len(body)-1)
	if rows > 0 {
		title += fmt.Sprintf(" (%d)", rows)
	}
	out := []string{w.Paint(st, title)}
	if len(body) > 0 && lines > 1 {
		out = append(out, body[0])
		fit := max(0, lines-3) // minus title, header, and a blank line
		skip = min(skip, max(0, rows-fit))
		out = append(out, body[1+skip:1+min(rows, skip+fit)]...)
	}
	for len(out) < lines {
		out = append(out, "")
	}
	return out[:lines]
}

// list renders one list as lines: the header of its columns, and one for each row.
func (m topModel) list(w term.Terminal, p topPart) []string {
	var b bytes.Buffer
	w.Writer, w.Quiet = &b, true
	d := m.data
	switch p {
	case topNodes:
		nodes := slices.Clone(d.nodes)
		slices.SortStableFunc(nodes, func(a, b api.Record) int {
			return cmp.Or(cmp.Compare(stressOf(b), stressOf(a)), names.Compare(d.known.Of(a.Node), d.known.Of(b.Node)))
		})
		if len(nodes) > 0 {
			PrintRecords(w, nodes)
		}
	case topStreams:
		if len(d.streams) > 0 {
			printStreams(w, d.streams)
		}
	case topLinks:
		if len(d.links) > 0 {
			printLinks(w, d.links, d.known)
		}
	case topSessions:
		if len(d.sessions) > 0 {
			printSessions(w, d.sessions, d.known, d.at)
		}
	case topEvents:
		if len(d.events) > 0 {
			fmt.Fprintln(w, w.Paint(term.Faint, "newest first"))
		}
		for _, e := range slices.Backward(d.events) {
			// Cut before colouring: escape codes have no width.
			plain := eventText(term.Terminal{}, e)
			if w.Width > 0 && runewidth.StringWidth(plain) > w.Width {
				fmt.Fprintln(w, runewidth.Truncate(plain, w.Width, "…"))
			} else {
				fmt.Fprintln(w, eventText(w, e))
			}
		}
	}
	text := strings.TrimSuffix(b.String(), "\n")
	if text == "" {
		return []string{w.Paint(term.Faint, "none")}
	}
	return strings.Split(text, "\n")
}

func stressOf(e api.Record) float64 {
	if e.Record == nil {
		return -1
	}
	return e.Record.Stress()
}

// readTop asks the node for everything concurrently. Parts that could not be
// read are noted; the error is that the node does not answer.
func readTop(c *cli.Context) (topData, error) {
	var d topData
	if err := ask.Fetch(c, "/status", &d.status); err != nil {
		return d, err
	}
	var (
		work sync.WaitGroup
		mu   sync.Mutex
	)
	read := func(what, path string, v any) {
		work.Go(func() {
			if err := ask.Fetch(c, path, v); err != nil {
				mu.Lock()
				defer mu.Unlock()
				d.unknown = append(d.unknown, what+": "+err.Error())
			}
		})
	}
	var (
		records api.Records
		all     api.Streams
	)
	read("nodes", "/records", &records)
	read("streams", "/streams", &all)
	read("links", "/links", &d.links)
	read("sessions", "/sessions", &d.sessions)
	read("events", "/events?follow=false&since=1h", &d.events)
	work.Go(func() { d.known = ask.NamesOf(c) })
	work.Wait()
	d.nodes, d.streams = records.Records, all.Streams
	if silent := all.Hearing.String(); silent != "" {
		d.unknown = append(d.unknown, silent)
	}
	slices.Sort(d.unknown)
	d.at = time.Now()
	return d, nil
}

func TopCommand() *cli.Command {
	return &cli.Command{
		Name: "top", Usage: "nodes, streams, links, sessions and events, live",
		Description: "As a running node sees them, once a second. Tab goes from list to list, Enter gives\n" +
			"one the whole screen, the arrows scroll, q quits.",
		Flags: ask.Flags(&cli.BoolFlag{Name: "once", Usage: "print what there is now, and end"}),
		Action: func(c *cli.Context) error {
			if err := cmdline.NoArguments(c); err != nil {
				return err
			}
			w := term.Of(c)
			m := topModel{width: w.Width, color: w.Color, fetch: func() (topData, error) { return readTop(c) }}
			if c.Bool("once") {
				var err error
				if m.data, err = m.fetch(); err != nil {
					return err
				}
				m.now, m.height = m.data.at, 1000
				_, err = fmt.Fprintln(w, strings.TrimSpace(m.once(w)))
				return err
			}
			if !term.IsTerminal(c.App.Writer) {
				return cmdline.BadInput(errors.New("weir top wants a terminal; weir top --once prints what there is now"))
			}
			if _, err := readTop(c); err != nil {
				return err // before the screen is switched
			}
			_, err := tea.NewProgram(m, tea.WithContext(c.Context)).Run()
			if errors.Is(err, tea.ErrProgramKilled) && c.Context.Err() != nil {
				return nil
			}
			return err
		},
	}
}

// once renders all lists, one after the other.
func (m topModel) once(w term.Terminal) string {
	lines := m.head(w)
	for p := range topParts {
		lines = append(append(append(lines, w.Paint(term.Strong, strings.ToUpper(p.String()))), m.list(w, p)...), "")
	}
	return strings.Join(lines, "\n")
}
