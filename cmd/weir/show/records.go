package show

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/names"
	"weir/cmd/weir/survey"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/inspect"
)

// recordFlags are the flags of the records commands, which read through a node
// or join the network themselves.
func recordFlags(more ...cli.Flag) []cli.Flag {
	return append(ask.Flags(append(more,
		&cli.StringSliceFlag{Name: "bootstrap", Usage: "join the network by `MULTIADDR` as a client instead of asking a running node; repeatable", EnvVars: cmdline.Env("BOOTSTRAP")},
		&cli.StringFlag{Name: "network", Usage: "`NAME` of the network to join", Value: "open", EnvVars: cmdline.Env("NETWORK")},
		&cli.StringFlag{Name: "stream", Usage: "the records of this `STREAM`'s carriers instead of the nodes'"},
	)...), ask.DiscoveryFlags()...)
}

func RecordsCommand() *cli.Command {
	return &cli.Command{
		Name: "records", Usage: "the published capacity records: list, get, watch, verify",
		Description: "Through a running node (--admin), or by itself (--bootstrap, or --discovery with a\n" +
			"list): it then joins the network as a client that stores nothing, and leaves.",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "all records, newest of each node, and where each is held",
				Flags:  recordFlags(&cli.BoolFlag{Name: "copies", Usage: "a line for every copy: who holds it, and for how long"}),
				Action: listRecords},
			{Name: "get", Usage: "the records of one node, as it publishes them", ArgsUsage: "PEER|NAME",
				Flags:  recordFlags(&cli.StringFlag{Name: "out", Usage: "write the first one, sealed, to `FILE`"}),
				Action: getRecords},
			{Name: "watch", Usage: "records as they come and go, until interrupted", Flags: recordFlags(), Action: watchRecords},
			{Name: "verify", Usage: "check every record, or one in a file", ArgsUsage: "[FILE]", Flags: recordFlags(), Action: verifyRecords},
		},
	}
}

// readRecords reads the records selected by the flags.
func readRecords(c *cli.Context) (list api.Records, done bool, err error) {
	stream := c.String("stream")
	if !ask.Standalone(c) {
		done, err = ask.Get(c, "/records?stream="+url.QueryEscape(stream), &list)
		return list, done, err
	}
	n, leave, err := ask.Join(c)
	if err != nil {
		return list, true, err
	}
	defer leave()
	list, err = survey.Read(c.Context, n.Reader, survey.Topic(stream))
	if err != nil {
		return list, true, cli.Exit("the records are not known: "+err.Error(), cmdline.ExitConnection)
	}
	if c.Bool("json") {
		return list, true, term.PrintJSON(c, list)
	}
	return list, false, nil
}

func listRecords(c *cli.Context) error {
	list, done, err := readRecords(c)
	if done {
		return err
	}
	known := names.In(list.Records)
	slices.SortStableFunc(list.Records, func(a, b api.Record) int { return names.Compare(known.Of(a.Node), known.Of(b.Node)) })
	if c.Bool("copies") {
		printCopies(term.Of(c), list.Records)
	} else {
		PrintRecords(term.Of(c), list.Records)
	}
	return missing(c.App.Writer, list.Hearing, nil)
}

// missing prints below a list which holders and nodes did not answer, so that
// entries may be missing. It returns an error if too few answered for the list
// to be of use.
func missing(w io.Writer, heard dht.Hearing, nodes []dht.Silence) error {
	var said []string
	if s := heard.String(); s != "" {
		said = append(said, s)
	}
	if len(nodes) > 0 {
		said = append(said, fmt.Sprintf("%s did not say what they carry (%s)", term.Count(len(nodes), "node", "nodes"), nodes[0].Err))
	}
	if len(said) == 0 {
		return nil
	}
	text := strings.Join(said, "; ") + ": what only they know is missing here"
	if !heard.Enough() {
		return cli.Exit(text, cmdline.ExitConnection)
	}
	fmt.Fprintln(w, term.Printable(text))
	return nil
}

const noRecords = "no records: none was published, or all have expired; weir doctor says more"

// printCopies prints where every copy of every record is.
func printCopies(w term.Terminal, entries []api.Record) {
	if len(entries) == 0 {
		fmt.Fprintln(w, noRecords)
		return
	}
	known := names.In(entries)
	term.Table(w, "NODE\tHOLDER\tHELD FOR\tNOTE\tTOPIC\tSEQ\tPEER", func(row func(...any)) {
		for _, e := range entries {
			if e.Record == nil {
				row(cmp.Or(known.Of(e.Node), "?"), known.List(e.HeldBy), "-", term.Bad.Of(e.Error), "-", "-", cmp.Or(names.Short(e.Node), "-"))
			}
			for i, k := range e.Copies {
				node, note := "", ""
				if i == 0 {
					node = known.Of(e.Node)
				}
				if k.Holder == e.Node {
					note = "itself"
				}
				if k.Old {
					note = strings.TrimPrefix(note+", not the newest", ", ")
				}
				row(term.Called(node), known.Of(k.Holder), term.Seconds(k.HeldFor), cmp.Or(note, "-"), k.Topic, k.Seq, names.Short(e.Node))
			}
		}
	})
}

// heldBy gives the number of holders of the record, and the ages of their copies.
func heldBy(e api.Record) string {
	old := 0
	for _, k := range e.Copies {
		if k.Old {
			old++
		}
	}
	s := fmt.Sprint(len(e.HeldBy))
	if len(e.HeldFor) > 0 {
		least, most := slices.Min(e.HeldFor)/1000, slices.Max(e.HeldFor)/1000
		if len(e.HeldFor) == 1 || most-least < 0.05 {
			s += fmt.Sprintf(" (%.1f s)", most)
		} else {
			s += fmt.Sprintf(" (%.1f–%.1f s)", least, most)
		}
	}
	if old > 0 {
		s += fmt.Sprintf(" + %d older", old)
	}
	return s
}

func PrintRecords(w term.Terminal, entries []api.Record) {
	if len(entries) == 0 {
		fmt.Fprintln(w, noRecords)
		return
	}
	known := names.In(entries)
	term.Table(w, "NODE\tSTATE\tSTRESS\tSESSIONS\tUPLINK\tSTREAMS\tREGION\tCPU\tAGE\tTTL LEFT\tHELD BY\tURL\tPEER", func(row func(...any)) {
		for _, e := range entries {
			r := e.Record
			if r == nil {
				row(cmp.Or(known.Of(e.Node), "?"), term.Bad.Of(e.Error))
				continue
			}
			row(term.Called(known.Of(e.Node)), term.StateOf(r.State), fmt.Sprintf("%.2f", r.Stress()), term.Used(r.Sessions.Used, r.Sessions.Limit), term.Bitrate(r.Uplink.Used),
				r.Streams.Used, cmp.Or(r.Region, "-"), cpuCell(*r), term.Seconds(e.Age), term.Seconds(e.TTLLeft), heldBy(e), r.URL, names.Short(e.Node))
		}
	})
}

func getRecords(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("records get takes one peer ID or name, such as weir peers shows"))
	}
	id, err := peer.Decode(c.Args().First())
	if err != nil && !ask.Standalone(c) {
		id, err = ask.PeerCalled(c, c.Args().First())
	}
	if err != nil {
		return cmdline.BadInput(err)
	}
	var entries []api.Record
	if ask.Standalone(c) {
		n, leave, err := ask.Join(c)
		if err != nil {
			return err
		}
		defer leave()
		if entries, err = survey.Of(c.Context, n.Prober, n.Reader, id); err != nil {
			return cli.Exit(err.Error(), cmdline.ExitConnection)
		}
		if c.Bool("json") {
			return term.PrintJSON(c, entries)
		}
	} else if done, err := ask.Get(c, "/records/"+id.String(), &entries); done {
		return err
	}
	if out := c.String("out"); out != "" && len(entries) > 0 {
		if err := os.WriteFile(out, entries[0].Sealed, 0o644); err != nil {
			return err
		}
	}
	for _, e := range entries {
		b, err := json.MarshalIndent(e.Record, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(c.App.Writer, "%s\n%d bytes sealed, %s\n", b, e.Bytes, verdict(e))
	}
	return nil
}

func watchRecords(c *cli.Context) error {
	seen := map[peer.ID]string{}
	show := func(e api.RecordChange) error {
		if c.Bool("json") {
			return term.PrintJSON(c, e)
		}
		w, now := c.App.Writer, time.Now().Format("15:04:05.000")
		switch {
		case e.Synced:
			all := "that is all there is"
			if e.Hearing != nil && e.Hearing.String() != "" {
				all = "that is what is known: " + term.Printable(e.Hearing.String())
			}
			fmt.Fprintf(w, "%s  -- %s; what follows is new --\n", now, all)
		case e.Entry != nil && e.Entry.Record != nil:
			r := e.Entry.Record
			seen[r.Node] = r.Name
			known := names.New(seen)
			fmt.Fprintf(w, "%s  %s  %s  stress %.2f  sessions %s  uplink %s  seq %d  at holder %s\n", now, known.Of(r.Node), r.State, r.Stress(),
				term.Used(r.Sessions.Used, r.Sessions.Limit), term.Bitrate(r.Uplink.Used), r.Seq, known.List(e.Entry.HeldBy))
		case e.Entry != nil:
			fmt.Fprintf(w, "%s  bad record: %s\n", now, term.Printable(e.Entry.Error))
		default:
			fmt.Fprintf(w, "%s  %s  gone\n", now, names.New(seen).Of(e.Gone))
			delete(seen, e.Gone)
		}
		return nil
	}
	if !ask.Standalone(c) {
		return ask.Follow(c, "/records/watch?stream="+url.QueryEscape(c.String("stream")), func(data []byte) error {
			var e api.RecordChange
			if err := json.Unmarshal(data, &e); err != nil {
				return err
			}
			return show(e)
		})
	}
	n, leave, err := ask.Join(c)
	if err != nil {
		return err
	}
	defer leave()
	err = n.Reader.Watch(c.Context, survey.Topic(c.String("stream")), func(ch inspect.Change) error { return show(survey.Change(ch)) })
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// verdict is the result of verify for a record.
func verdict(e api.Record) string {
	if e.Valid {
		return "good"
	}
	return "BAD: " + e.Error
}

func verifyRecords(c *cli.Context) error {
	var entries []api.Record
	switch {
	case c.NArg() > 1:
		return cmdline.BadInput(errors.New("records verify takes at most one file"))
	case c.NArg() == 1:
		sealed, err := os.ReadFile(c.Args().First())
		if err != nil {
			return cmdline.BadInput(err)
		}
		e := survey.Inspect(sealed, time.Now())
		// A file does not say when its record was received: compare with the clock.
		if past := -e.TTLLeft; e.Valid && past > 0 {
			e.Valid, e.Error = false, fmt.Sprintf("%v %s ago, by this machine's clock", capacity.ErrExpired, term.Seconds(past))
		}
		entries = []api.Record{e}
		if c.Bool("json") {
			if err := term.PrintJSON(c, entries); err != nil {
				return err
			}
		}
	default:
		var done bool
		var err error
		var list api.Records
		if list, done, err = readRecords(c); done {
			return err
		}
		entries = list.Records
		// A node's own checks of its records are not proof: check the bytes.
		for i, e := range entries {
			checked := survey.Inspect(e.Sealed, time.Now())
			checked.HeldBy, checked.HeldFor, checked.Copies = e.HeldBy, e.HeldFor, e.Copies
			entries[i] = checked
		}
	}
	failed := 0
	for _, e := range entries {
		if !e.Valid {
			failed++
		}
	}
	if !c.Bool("json") {
		known := names.In(entries)
		term.Table(term.Of(c), "NODE\t…VERDICT\tSIGNER\tSIGNER = NODE\tSEQ\tAGE\tTTL LEFT\tBYTES", func(row func(...any)) {
			for _, e := range entries {
				if e.Record == nil {
					row("-", term.Bad.Of(verdict(e)), cmp.Or(names.Short(e.Signer), "-"), "-", "-", "-", "-", e.Bytes)
					continue
				}
				mark := term.Good
				if !e.Valid {
					mark = term.Bad
				}
				row(term.Called(known.Of(e.Node)), mark.Of(verdict(e)), names.Short(e.Signer), term.Flagged(e.Node == e.Signer), e.Record.Seq, term.Seconds(e.Age), term.Seconds(e.TTLLeft), e.Bytes)
			}
		})
	}
	if failed > 0 {
		return cli.Exit(fmt.Sprintf("%d of %d records are bad", failed, len(entries)), cmdline.ExitFailure)
	}
	return nil
}
