package show

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity/event"
	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/eventlog"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/sfu"
	"weir/sfu/whip"
)

func EventsCommand() *cli.Command {
	var kinds []string
	wide := 0
	for _, d := range event.List() {
		wide = max(wide, len(d.Kind))
	}
	for _, d := range event.List() {
		kinds = append(kinds, fmt.Sprintf("  %-*s  %s", wide, d.Kind, d.Doc))
	}
	return &cli.Command{
		Name: "events", Usage: "what happened at a running node",
		Description: "Prints the last 1024 events at most, and with --follow those to come:\n\n" +
			"  weir events --since 10m\n" +
			"  weir events --follow --kind peer,node\n\n" +
			"Kinds:\n" + strings.Join(kinds, "\n"),
		Flags: ask.Flags(
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with what happens, until interrupted"},
			&cli.StringFlag{Name: "since", Usage: "begin `WHEN`: how long ago (10m), a time (2006-01-02T15:04:05Z), or after the number of an event"},
			&cli.StringFlag{Name: "trace", Usage: "only those of the request whose answer named the trace `ID`, as trace_id"},
			&cli.StringFlag{Name: "kind", Usage: "only these `KINDS`, with commas between; session is all of session.opened and session.closed"},
		),
		Action: showEvents,
	}
}

func showEvents(c *cli.Context) error {
	if err := cmdline.NoArguments(c); err != nil {
		return err
	}
	wanted, err := eventlog.KindsOf("--kind", c.String("kind"))
	if err != nil {
		return cmdline.BadInput(err)
	}
	ofTrace := strings.ToLower(c.String("trace"))
	if _, err := trace.TraceIDFromHex(ofTrace); err != nil && ofTrace != "" {
		return cmdline.BadInput(fmt.Errorf("--trace %s: want the 32 hexadecimal digits of a trace_id", ofTrace))
	}
	w := term.Of(c)
	show := func(e event.Event) error {
		if !wanted(e.Kind) || ofTrace != "" && e.Trace != ofTrace {
			return nil
		}
		if c.Bool("json") {
			return term.PrintJSON(c, e)
		}
		_, err := fmt.Fprintln(w, eventText(w, e))
		return err
	}
	q := url.Values{"since": {c.String("since")}}
	if c.Bool("follow") {
		return ask.Follow(c, "/events?"+q.Encode(), func(data []byte) error {
			var e event.Event
			if err := json.Unmarshal(data, &e); err != nil {
				return err
			}
			return show(e)
		})
	}
	q.Set("follow", "false")
	var list []event.Event
	if err := ask.Fetch(c, "/events?"+q.Encode(), &list); err != nil {
		return err
	}
	for _, e := range list {
		if err := show(e); err != nil {
			return err
		}
	}
	return nil
}

// eventText formats an event as one line for people, with the content of its
// log line.
func eventText(w term.Terminal, e event.Event) string {
	_, msg := eventlog.Message(e)
	var parts []string
	add := func(prefix, s string) {
		if s != "" {
			parts = append(parts, prefix+term.Printable(s))
		}
	}
	add("", e.Stream)
	if e.Peer != "" {
		name := names.Short(e.Peer)
		if e.Name != "" {
			name = e.Name + name
		}
		if e.Kind == event.SessionOpened {
			name = "sent by " + name
		}
		parts = append(parts, w.Paint(term.Strong, name))
	}
	add("", e.Client)
	if e.Reason != "" && !strings.Contains(e.Detail, e.Reason) {
		add("", e.Reason)
	}
	add("", e.Detail)
	if e.Elapsed > 0 {
		parts = append(parts, eventlog.Elapsed(e.Elapsed))
	}
	if e.Kind == event.SessionClosed {
		parts = append(parts, term.Count(int(e.Packets), "packet", "packets"), fmt.Sprintf("%d lost", e.Lost))
	}
	st := term.Plain
	switch e.Kind {
	case event.Refused, event.NodeFull, event.PeerLost, event.PullLost, event.PullFailed, event.StreamOrphaned, event.StreamWaiting, event.PolicyRefused, event.CertificateFailed, event.CertificateExpiring, event.ProvisionFailed, event.ProvisionTimedOut:
		st = term.Warn
	case event.NodeFree, event.PeerBack, event.PullResumed, event.StreamResumed:
		st = term.Good
	}
	return w.Paint(term.Faint, e.Time.Local().Format("15:04:05.000")) + "  " + w.Paint(st, msg) + term.Prefixed(": ", strings.Join(parts, ", "))
}

func SessionsCommand() *cli.Command {
	return &cli.Command{
		Name: "sessions", Usage: "the publishers and viewers of a running node: list, end",
		Description: "BITRATE and LOSS are those of the last seconds, RTT is by a viewer's last report.\n" +
			"SENT BY is the node that redirected the client here.",
		Flags: ask.Flags(),
		Action: func(c *cli.Context) error {
			if err := cmdline.NoArguments(c); err != nil {
				return err
			}
			var all []sfu.SessionStatus
			if done, err := ask.Get(c, "/sessions", &all); done {
				return err
			}
			if len(all) == 0 {
				fmt.Fprintln(c.App.Writer, "no sessions at this node")
				return nil
			}
			printSessions(term.Of(c), all, ask.NamesOf(c), time.Now())
			return nil
		},
		Subcommands: []*cli.Command{{
			Name: "end", Usage: "end one session", ArgsUsage: "ID",
			Description: "ID is what weir sessions prints, or the beginning of it.",
			Flags:       ask.Flags(),
			Action: func(c *cli.Context) error {
				if c.NArg() != 1 {
					return cmdline.BadInput(errors.New("weir sessions end takes the ID of one session, which weir sessions prints"))
				}
				var ended api.EndedSession
				if err := ask.Post(c, "/sessions/"+url.PathEscape(c.Args().First())+"/end", nil, &ended); err != nil {
					return err
				}
				if c.Bool("json") {
					return term.PrintJSON(c, ended)
				}
				_, err := fmt.Fprintf(c.App.Writer, "ended session %s: %s of %s\n", ended.ID, term.Printable(ended.Stream), term.Printable(ended.Client))
				return err
			},
		}},
	}
}

// sessionShown is how many characters of a session's ID are shown: enough to
// tell sessions apart.
const sessionShown = 8

func printSessions(w term.Terminal, all []sfu.SessionStatus, known names.Names, now time.Time) {
	term.Table(w, "ID\tSTREAM\tROLE\tBITRATE\tLOSS\tRTT\tFOR\tCLIENT\tSENT BY\tSTATE\tLAYER\tPACKETS\tLOST\tKEYFRAMES\tWHOLE ID", func(row func(...any)) {
		for _, s := range all {
			role := "viewer"
			if s.Kind == "whip" {
				role = "publisher"
			}
			loss := term.Plain.Of(fmt.Sprintf("%.1f %%", 100*s.Loss))
			if s.Loss >= 0.02 {
				loss.Style = term.Warn
			}
			state := term.Plain.Of(s.State)
			if s.State != "connected" {
				state.Style = term.Warn
			}
			row(s.ID[:min(len(s.ID), sessionShown)], term.Strong.Of(s.Stream), role, term.Bitrate(s.Bitrate), loss, term.Millis(s.RTT), now.Sub(s.Since).Round(time.Second),
				s.Remote, cmp.Or(known.Of(s.From), "-"), state, layerWords(s.Layer), s.Packets, s.Lost, s.Keyframes, s.ID)
		}
	})
}

// layerWords names the layer that a viewer is sent; "-": there is one only.
func layerWords(l *whip.LayerStatus) string {
	if l == nil {
		return "-"
	}
	words := fmt.Sprintf("S%dT%d", l.Spatial, l.Temporal)
	if l.RID != "" {
		words = l.RID
	}
	if l.Width > 0 {
		words += fmt.Sprintf(" %d×%d", l.Width, l.Height)
	}
	return words
}

func endStream(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir streams end takes the name of one stream"))
	}
	var ended map[string]string
	if err := ask.Post(c, "/streams/end?"+url.Values{"stream": {c.Args().First()}}.Encode(), nil, &ended); err != nil {
		return err
	}
	if c.Bool("json") {
		return term.PrintJSON(c, ended)
	}
	_, err := fmt.Fprintf(c.App.Writer, "ended stream %s and its publisher's session\n", term.Printable(ended["stream"]))
	return err
}

func DecisionsCommand() *cli.Command {
	return &cli.Command{
		Name: "decisions", Usage: "the last placements of a running node, and why",
		Description: "A placement is made when a client is sent to another node, and when a stream is\n" +
			"pulled from one. The last 64 are kept.",
		Flags: ask.Flags(
			&cli.IntFlag{Name: "last", Usage: "the last `N` only", Value: 20},
			&cli.BoolFlag{Name: "explain", Usage: "every candidate of each, with its score by term or the rule that rejected it, and the reservations asked for"},
		),
		Action: func(c *cli.Context) error {
			if err := cmdline.NoArguments(c); err != nil {
				return err
			}
			last := c.Int("last")
			if last < 1 {
				return cmdline.BadInput(fmt.Errorf("--last %d: want 1 or more", last))
			}
			var all []dht.Decision
			if done, err := ask.Get(c, "/decisions", &all); done {
				return err
			}
			if len(all) == 0 {
				fmt.Fprintln(c.App.Writer, "no placements: this node has sent no client on and pulled no stream")
				return nil
			}
			all = all[max(0, len(all)-last):]
			w, known := term.Of(c), ask.NamesOf(c)
			if c.Bool("explain") {
				for _, d := range all {
					explainDecision(w, d, known)
				}
				return nil
			}
			printDecisions(w, all, known)
			return nil
		},
	}
}

// outcomeOf is the outcome of a placement, for people.
func outcomeOf(d dht.Decision, known names.Names) term.Styled {
	if d.Chosen == "" {
		return term.Warn.Of("refused: " + cmp.Or(d.Refused, "no candidate"))
	}
	return term.Called(known.Of(d.Chosen))
}

func printDecisions(w term.Terminal, all []dht.Decision, known names.Names) {
	term.Table(w, "TIME\tFOR\tSTREAM\tCHOSEN\tPASSED\tTOOK\t…WHY", func(row func(...any)) {
		for _, d := range all {
			passed, why := 0, "-"
			for _, v := range d.Verdicts {
				if v.Rule == "" {
					passed++
				}
				if v.Node == d.Chosen && d.Chosen != "" {
					why = fmt.Sprintf("score %.3f: %s", v.Score, ByTerm(v.Terms))
				}
			}
			if d.Chosen == "" && len(d.Verdicts) > passed {
				why = rejections(d)
			}
			row(d.Time.Local().Format(time.TimeOnly), d.Need.Purpose, cmp.Or(d.Need.Stream, "-"), outcomeOf(d, known), fmt.Sprintf("%d of %d", passed, len(d.Verdicts)), term.Millis(d.TotalMillis), why)
		}
	})
}

// rejections lists the rules that rejected candidates, with counts.
func rejections(d dht.Decision) string {
	rules := map[string]int{}
	for _, v := range d.Verdicts {
		if v.Rule != "" {
			rules[v.Rule]++
		}
	}
	var list []string
	for _, rule := range slices.Sorted(maps.Keys(rules)) {
		list = append(list, fmt.Sprintf("%d by rule %s", rules[rule], rule))
	}
	return "rejected " + strings.Join(list, ", ")
}

func explainDecision(w term.Terminal, d dht.Decision, known names.Names) {
	fmt.Fprintf(w, "%s  %s%s: %s in %.1f ms\n", d.Time.Local().Format("15:04:05.000"), d.Need.Purpose, term.Printable(term.Prefixed(" of ", d.Need.Stream)),
		w.Paint(outcomeOf(d, known).Style, fmt.Sprint(outcomeOf(d, known).Value)), d.TotalMillis)
	printVerdicts(w, d, known)
	for _, r := range d.Reservations {
		said := "granted"
		if r.Lease == "" {
			said = cmp.Or(r.Reason, "no answer") + term.Prefixed(": ", r.Detail)
		} else if r.Node != d.Chosen {
			said = "granted, and given back"
		}
		fmt.Fprintf(w, "asked %s to reserve: %s in %.1f ms\n", w.Paint(term.Strong, known.Of(r.Node)), term.Printable(said), r.Elapsed)
	}
	fmt.Fprintln(w)
}

func PingCommand() *cli.Command {
	return &cli.Command{
		Name: "ping", Usage: "measure round trips from a running node to another", ArgsUsage: "PEER|NAME",
		Description: "By libp2p's ping protocol, over the connection that nodes use among themselves.\nExits with 1 if no ping was answered.",
		Flags: ask.Flags(
			&cli.IntFlag{Name: "count", Aliases: []string{"c"}, Usage: "how many `PINGS`, one a second", Value: 5},
		),
		Action: ping,
	}
}

func ping(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir ping takes one peer ID or name, such as weir peers shows"))
	}
	count := c.Int("count")
	if count < 1 || count > api.MaxPings {
		return cmdline.BadInput(fmt.Errorf("--count %d: want 1 to %d", count, api.MaxPings))
	}
	id, err := ask.PeerCalled(c, c.Args().First())
	if err != nil {
		return err
	}
	w := term.Of(c)
	known := ask.NamesOf(c)
	var p pings
	q := url.Values{"peer": {id.String()}, "count": {fmt.Sprint(count)}}
	err = ask.Follow(c, "/ping?"+q.Encode(), func(data []byte) error {
		var r api.Ping
		if err := json.Unmarshal(data, &r); err != nil {
			return err
		}
		p.add(r)
		switch {
		case c.Bool("json"):
			err := term.PrintJSON(c, r)
			if err != nil {
				return err
			}
		case r.Err != "":
			fmt.Fprintf(w, "%s: %s\n", w.Paint(term.Strong, known.Of(id)), w.Paint(term.Bad, r.Err))
		default:
			fmt.Fprintf(w, "%s: %.2f ms\n", w.Paint(term.Strong, known.Of(id)), r.RTT)
		}
		if p.sent == count {
			return errPingsDone
		}
		return nil
	})
	if err != nil && !errors.Is(err, errPingsDone) {
		return err
	}
	if !c.Bool("json") {
		fmt.Fprintln(w, p)
	}
	if p.answered == 0 {
		return cli.Exit("", cmdline.ExitFailure)
	}
	return nil
}

var errPingsDone = errors.New("all pings are done")

// pings are the statistics of a series of pings.
type pings struct {
	sent, answered int
	least, most    float64
	sum            float64
}

func (p *pings) add(r api.Ping) {
	p.sent++
	if r.Err != "" {
		return
	}
	if p.answered == 0 {
		p.least = math.Inf(1)
	}
	p.answered++
	p.least, p.most, p.sum = min(p.least, r.RTT), max(p.most, r.RTT), p.sum+r.RTT
}

func (p pings) String() string {
	line := fmt.Sprintf("%s, %d answered", term.Count(p.sent, "ping", "pings"), p.answered)
	if p.answered > 0 {
		line += fmt.Sprintf("; min/avg/max %.2f/%.2f/%.2f ms", p.least, p.sum/float64(p.answered), p.most)
	}
	return line
}
