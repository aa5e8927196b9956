package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/dht"
	"weir/sfu"
	"weir/sfu/problem"
)

const (
	// adminTimeout bounds one request to the admin API.
	adminTimeout = 10 * time.Second
	// joinTimeout bounds joining a network as a client.
	joinTimeout = 10 * time.Second
	// maxAdminReply bounds what is read of an answer, in bytes.
	maxAdminReply = 64 << 20
)

// adminFlags are those of every command that asks a running node.
func adminFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "admin", Usage: "`ADDR` of a running node's admin API", Value: defaultAdmin, EnvVars: env("ADMIN")},
		&cli.BoolFlag{Name: "json", Usage: "print what the API returns"},
		wideFlag(),
	}, more...)
}

// adminURL completes --admin.
func adminURL(c *cli.Context) (string, error) {
	addr := c.String("admin")
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" {
		return "", badInput(fmt.Errorf("--admin %s: want HOST:PORT", c.String("admin")))
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// get asks the admin API and decodes its answer into v. With --json the answer
// is printed as it is, and done reports that nothing is left to do.
func get(c *cli.Context, path string, v any) (done bool, err error) {
	resp, cancel, err := ask(c, path, adminTimeout)
	if err != nil {
		return true, err
	}
	defer cancel()
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminReply))
	if err != nil {
		return true, cli.Exit(fmt.Sprintf("%s: the answer broke off: %v", resp.Request.URL, err), exitConnection)
	}
	if c.Bool("json") {
		_, err := c.App.Writer.Write(b)
		return true, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return true, fmt.Errorf("%s: not the answer of a weir node: %w", resp.Request.URL, err)
	}
	return false, nil
}

// ask sends one GET to the admin API. A timeout of 0 is none.
func ask(c *cli.Context, path string, timeout time.Duration) (*http.Response, context.CancelFunc, error) {
	return request(c, http.MethodGet, path, nil, timeout)
}

// fetch asks the admin API, whatever --json says, and post sends it body.
func fetch(c *cli.Context, path string, v any) error {
	return exchange(c, http.MethodGet, path, nil, v)
}

func post(c *cli.Context, path string, body []byte, v any) error {
	return exchange(c, http.MethodPost, path, body, v)
}

func exchange(c *cli.Context, method, path string, body []byte, v any) error {
	resp, cancel, err := request(c, method, path, body, adminTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAdminReply)).Decode(v); err != nil {
		return fmt.Errorf("%s: not the answer of a weir node: %w", resp.Request.URL, err)
	}
	return nil
}

// request sends one request to the admin API. The caller closes the answer's
// body and then calls cancel.
func request(c *cli.Context, method, path string, body []byte, timeout time.Duration) (*http.Response, context.CancelFunc, error) {
	base, err := adminURL(c)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(c.Context)
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(c.Context, timeout)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, nil, badInput(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		cancel()
		return nil, nil, cli.Exit(fmt.Sprintf("no node answers at %s (%s): is it running, and is that its --admin address?", base, problem.Cause(err)), exitConnection)
	}
	if resp.StatusCode != http.StatusOK {
		said := problem.Read(resp)
		resp.Body.Close()
		cancel()
		code := exitFailure
		switch {
		case resp.StatusCode < 500:
			code = exitInput
		case said.Code == problem.NotKnown, said.Code == problem.NoAnswer:
			code = exitConnection
		}
		return nil, nil, cli.Exit(said.Error(), code)
	}
	return resp, cancel, nil
}

// events reads server-sent events until the stream or f ends.
func events(c *cli.Context, path string, f func(data []byte) error) error {
	resp, cancel, err := ask(c, path, 0)
	if err != nil {
		return err
	}
	defer cancel()
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := f([]byte(data)); err != nil {
				return err
			}
		}
	}
	if c.Context.Err() != nil {
		return nil // interrupted: that is how a watch ends
	}
	return cli.Exit("the node has closed the stream", exitConnection)
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "what a running node is doing", Flags: adminFlags(),
		Action: func(c *cli.Context) error {
			var s status
			if done, err := get(c, "/status", &s); done {
				return err
			}
			var links []sfu.LinkStatus
			if _, err := get(c, "/links", &links); err != nil {
				return err
			}
			printStatus(terminalOf(c), s, links, namesOf(c))
			return nil
		},
	}
}

func printStatus(w terminal, s status, links []sfu.LinkStatus, known nodeNames) {
	pairs(w, func(row func(string, ...any)) {
		row("node", styled{or(s.Name, "-"), strong}, "  ", s.PeerID)
		row("release", s.Release, ", up ", (time.Duration(s.Uptime) * time.Millisecond).Round(time.Second))
		row("network", s.Network, ", ", count(s.Peers, "peer", "peers"), " connected, holds ", count(s.Holds, "record", "records"))
		row("holders", holdersLine(s))
		row("region", or(s.Region, "-"))
		row("state", stateOf(s.State), fmt.Sprintf(", stress %.2f", s.Stress), drainLine(s.Drain))
		row("sessions", fmt.Sprintf("%s (%s, %s, %s)", usage(s.Record.Sessions.Used, s.Record.Sessions.Limit),
			count(s.Publishers, "publisher", "publishers"), count(s.Viewers, "viewer", "viewers"), count(s.Leases, "lease", "leases")))
		row("streams", s.Streams, " over ", count(s.Links, "cascade link", "cascade links"))
		row("uplink", bits(s.Record.Uplink.Used), " of ", bits(s.Record.Uplink.Limit))
		row("cpu", cpuLine(s.Record))
		row("console", s.HTTP)
		if s.TLS != nil {
			row("certificate", strings.Join(s.TLS.Names, ", "), ", until ", stamp(s.TLS.NotAfter), ", by ", s.TLS.Issuer)
		}
		row("media", "udp ", s.Media)
		if s.Releasable {
			row("idle", "releasable")
		}
		for _, region := range slices.Sorted(maps.Keys(s.Provision)) {
			row("provision", "region ", or(region, "-"), ": ", provisionLine(s.Provision[region], time.Now()))
		}
		for _, a := range s.P2P {
			row("address", a)
		}
	})
	if len(links) > 0 {
		fmt.Fprintln(w)
		printLinks(w, links, known)
	}
}

func printLinks(w terminal, links []sfu.LinkStatus, known nodeNames) {
	table(w, "LINK\tSTATE\tRTT\tLOST\tPULLS IN\tPULLS OUT\tPACKETS IN\tPACKETS OUT\tPEER", func(row func(...any)) {
		for _, l := range links {
			row(called(known.of(l.Peer)), l.State, ms(l.RTT), l.Lost, or(strings.Join(l.PullsIn, " "), "-"), or(strings.Join(l.PullsOut, " "), "-"), l.PacketsIn, l.PacketsOut, shortID(l.Peer))
		}
	})
}

// cpuLine says how much of the CPU is in use, and whether that counts.
func cpuLine(r capacity.Record) string {
	line := fmt.Sprintf("%.0f %% of %s", r.CPU*100, cores(r.Cores))
	if r.CPULimit == 0 {
		line += ", not counted (--cpu-limit 0)"
	}
	return line
}

// cpuCell is cpuLine for a table: a use that has no limit is no load.
func cpuCell(r capacity.Record) string {
	if r.CPULimit == 0 {
		return fmt.Sprintf("%.0f %% of any", r.CPU*100)
	}
	return fmt.Sprintf("%.0f %%", r.CPU*100)
}

func cores(n float64) string {
	if n == 1 {
		return "1 core"
	}
	return fmt.Sprintf("%.4g cores", n)
}

func peersCommand() *cli.Command {
	return &cli.Command{
		Name: "peers", Usage: "known and connected peers of a running node", Flags: adminFlags(),
		Description: "RTT is measured, PREDICTED reckoned from both nodes' network coordinates; ERROR is\n" +
			"how far the peer trusts its own (0 fully, 1 not at all). CLOCK is how far the\n" +
			"peer's clock is ahead of this node's. HOLDER tells who holds the records of this\n" +
			"node's neighbourhood.",
		Action: func(c *cli.Context) error {
			var peers []dht.PeerInfo
			if done, err := get(c, "/peers", &peers); done {
				return err
			}
			if len(peers) == 0 {
				fmt.Fprintln(c.App.Writer, "no peers: weir doctor says why")
				return nil
			}
			known := namesOf(c)
			table(terminalOf(c), "NAME\tCONNECTED\tRTT\tHOLDER\tHOLDS\tPEER\tCLOCK\tPREDICTED\tERROR\tADDRESS", func(row func(...any)) {
				for _, p := range peers {
					row(called(known.of(p.ID)), styled{connection(p), connectionStyle(p)}, ms(p.RTT), yes(p.Holder), holdings(p), p.ID,
						clockOffset(p), ms(p.CoordinateRTT), coordinateError(p), addressOf(p))
				}
			})
			return nil
		},
	}
}

func connectionStyle(p dht.PeerInfo) style {
	if !p.Connected || !p.Member {
		return warn
	}
	return plain
}

// recordFlags are those of the records commands: through a node, or by
// themselves.
func recordFlags(more ...cli.Flag) []cli.Flag {
	return append(adminFlags(append(more,
		&cli.StringSliceFlag{Name: "bootstrap", Usage: "join the network by `MULTIADDR` as a client instead of asking a running node; repeatable", EnvVars: env("BOOTSTRAP")},
		&cli.StringFlag{Name: "network", Usage: "`NAME` of the network to join", Value: "open", EnvVars: env("NETWORK")},
		&cli.StringFlag{Name: "stream", Usage: "the records of this `STREAM`'s carriers instead of the nodes'"},
	)...), holderFlags()...)
}

func recordsCommand() *cli.Command {
	return &cli.Command{
		Name: "records", Usage: "the published capacity records: list, get, watch, verify",
		Description: "Through a running node (--admin), or by itself (--bootstrap, or --holders with a\n" +
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

// join joins the network named by the flags.
func join(c *cli.Context) (*dht.Node, func(), error) {
	var bootstrap []peer.AddrInfo
	for _, s := range c.StringSlice("bootstrap") {
		info, err := dht.ParseBootstrap(s)
		if err != nil {
			return nil, nil, badInput(err)
		}
		bootstrap = append(bootstrap, info)
	}
	holding, servers, err := holdersOf(c, nil)
	if err != nil {
		return nil, nil, badInput(err)
	}
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		return nil, nil, err
	}
	n, err := dht.Listen(dht.Config{
		Key: key, Network: c.String("network"), Bootstrap: bootstrap, Holding: holding, Servers: serversOf(servers),
		Client: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(c.Context)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = n.Run(ctx) // ends with ctx
	}()
	leave := func() {
		cancel()
		<-ran
		_ = n.Close()
	}
	timeout := time.NewTimer(joinTimeout)
	defer timeout.Stop()
	select {
	case <-n.Ready():
	case <-timeout.C:
	case <-ctx.Done():
	}
	// A node of another network connects as well, but serves nothing of ours.
	if !slices.ContainsFunc(n.Peers(), func(p dht.PeerInfo) bool { return p.Connected && p.Member }) {
		leave()
		return nil, nil, cli.Exit(fmt.Sprintf("none of the %s could be reached as a node of network %q: check the addresses, and --network",
			map[bool]string{true: "bootstrap peers", false: "servers listed"}[len(bootstrap) > 0], c.String("network")), exitConnection)
	}
	return n, leave, nil
}

// standalone reports whether the command is to join the network itself.
func standalone(c *cli.Context) bool {
	return (c.IsSet("bootstrap") || c.IsSet("holder") || c.IsSet("server-list")) && !(c.IsSet("admin") && flagGiven(c, "admin"))
}

// flagGiven reports whether a flag was on the command line, and not only in
// the environment.
func flagGiven(c *cli.Context, name string) bool {
	return slices.ContainsFunc(os.Args, func(a string) bool {
		return a == "--"+name || strings.HasPrefix(a, "--"+name+"=") || a == "-"+name
	})
}

// readRecords gets the records that the flags name.
func readRecords(c *cli.Context) (list recordList, done bool, err error) {
	stream := c.String("stream")
	if !standalone(c) {
		done, err = get(c, "/records?stream="+url.QueryEscape(stream), &list)
		return list, done, err
	}
	n, leave, err := join(c)
	if err != nil {
		return list, true, err
	}
	defer leave()
	list, err = snapshot(c.Context, n, topicOf(stream))
	if err != nil {
		return list, true, cli.Exit("the records are not known: "+err.Error(), exitConnection)
	}
	if c.Bool("json") {
		return list, true, printJSON(c, list)
	}
	return list, false, nil
}

func printJSON(c *cli.Context, v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = fmt.Fprintf(c.App.Writer, "%s\n", b)
	}
	return err
}

func listRecords(c *cli.Context) error {
	list, done, err := readRecords(c)
	if done {
		return err
	}
	known := namesIn(list.Records)
	slices.SortStableFunc(list.Records, func(a, b recordEntry) int { return compareNames(known.of(a.Node), known.of(b.Node)) })
	if c.Bool("copies") {
		printCopies(terminalOf(c), list.Records)
	} else {
		printRecords(terminalOf(c), list.Records)
	}
	return missing(c.App.Writer, list.Hearing, nil)
}

// missing says below a list what it may lack since some did not answer: holders,
// and nodes that would tell of themselves. It is an error if too few did for the
// list to be worth anything.
func missing(w io.Writer, heard dht.Hearing, nodes []dht.Silence) error {
	var said []string
	if s := heard.String(); s != "" {
		said = append(said, s)
	}
	if len(nodes) > 0 {
		said = append(said, fmt.Sprintf("%s did not say what they carry (%s)", count(len(nodes), "node", "nodes"), nodes[0].Err))
	}
	if len(said) == 0 {
		return nil
	}
	text := strings.Join(said, "; ") + ": what only they know is missing here"
	if !heard.Enough() {
		return cli.Exit(text, exitConnection)
	}
	fmt.Fprintln(w, plainText(text))
	return nil
}

const noRecords = "no records: nobody has published any, or their time has run out; weir doctor says more"

// printCopies prints where every copy of every record is.
func printCopies(w terminal, entries []recordEntry) {
	if len(entries) == 0 {
		fmt.Fprintln(w, noRecords)
		return
	}
	known := namesIn(entries)
	table(w, "NODE\tHOLDER\tHELD FOR\tNOTE\tTOPIC\tSEQ\tPEER", func(row func(...any)) {
		for _, e := range entries {
			if e.Record == nil {
				row(or(known.of(e.Node), "?"), known.list(e.HeldBy), "-", styled{e.Error, bad}, "-", "-", or(shortID(e.Node), "-"))
			}
			for i, k := range e.Copies {
				node, note := "", ""
				if i == 0 {
					node = known.of(e.Node)
				}
				if k.Holder == e.Node {
					note = "itself"
				}
				if k.Old {
					note = strings.TrimPrefix(note+", not the newest", ", ")
				}
				row(called(node), known.of(k.Holder), seconds(k.HeldFor), or(note, "-"), k.Topic, k.Seq, shortID(e.Node))
			}
		}
	})
}

// heldBy says how many hold the record, and for how long: the ages of the
// copies.
func heldBy(e recordEntry) string {
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

func printRecords(w terminal, entries []recordEntry) {
	if len(entries) == 0 {
		fmt.Fprintln(w, noRecords)
		return
	}
	known := namesIn(entries)
	table(w, "NODE\tSTATE\tSTRESS\tSESSIONS\tUPLINK\tSTREAMS\tREGION\tCPU\tAGE\tTTL LEFT\tHELD BY\tURL\tPEER", func(row func(...any)) {
		for _, e := range entries {
			r := e.Record
			if r == nil {
				row(or(known.of(e.Node), "?"), styled{e.Error, bad})
				continue
			}
			row(called(known.of(e.Node)), stateOf(r.State), fmt.Sprintf("%.2f", r.Stress()), usage(r.Sessions.Used, r.Sessions.Limit), bits(r.Uplink.Used),
				r.Streams.Used, or(r.Region, "-"), cpuCell(*r), seconds(e.Age), seconds(e.TTLLeft), heldBy(e), r.URL, shortID(e.Node))
		}
	})
}

func getRecords(c *cli.Context) error {
	if c.NArg() != 1 {
		return badInput(errors.New("records get takes one peer ID or name, such as weir peers shows"))
	}
	id, err := peer.Decode(c.Args().First())
	if err != nil && !standalone(c) {
		id, err = peerCalled(c, c.Args().First())
	}
	if err != nil {
		return badInput(err)
	}
	var entries []recordEntry
	if standalone(c) {
		n, leave, err := join(c)
		if err != nil {
			return err
		}
		defer leave()
		if entries, err = recordsOf(c.Context, n, id); err != nil {
			return cli.Exit(err.Error(), exitConnection)
		}
		if c.Bool("json") {
			return printJSON(c, entries)
		}
	} else if done, err := get(c, "/records/"+id.String(), &entries); done {
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
	show := func(e watchEvent) error {
		if c.Bool("json") {
			return printJSON(c, e)
		}
		w, now := c.App.Writer, time.Now().Format("15:04:05.000")
		switch {
		case e.Synced:
			all := "that is all there is"
			if e.Hearing != nil && e.Hearing.String() != "" {
				all = "that is what is known: " + plainText(e.Hearing.String())
			}
			fmt.Fprintf(w, "%s  -- %s; what follows is new --\n", now, all)
		case e.Entry != nil && e.Entry.Record != nil:
			r := e.Entry.Record
			seen[r.Node] = r.Name
			known := newNames(seen)
			fmt.Fprintf(w, "%s  %s  %s  stress %.2f  sessions %s  uplink %s  seq %d  at holder %s\n", now, known.of(r.Node), r.State, r.Stress(),
				usage(r.Sessions.Used, r.Sessions.Limit), bits(r.Uplink.Used), r.Seq, known.list(e.Entry.HeldBy))
		case e.Entry != nil:
			fmt.Fprintf(w, "%s  bad record: %s\n", now, plainText(e.Entry.Error))
		default:
			fmt.Fprintf(w, "%s  %s  gone\n", now, newNames(seen).of(e.Gone))
			delete(seen, e.Gone)
		}
		return nil
	}
	if !standalone(c) {
		return events(c, "/records/watch?stream="+url.QueryEscape(c.String("stream")), func(data []byte) error {
			var e watchEvent
			if err := json.Unmarshal(data, &e); err != nil {
				return err
			}
			return show(e)
		})
	}
	n, leave, err := join(c)
	if err != nil {
		return err
	}
	defer leave()
	err = n.Watch(c.Context, topicOf(c.String("stream")), func(ch dht.Change) error { return show(watchEventOf(ch)) })
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// verdict is what verify says of a record.
func verdict(e recordEntry) string {
	if e.Valid {
		return "good"
	}
	return "BAD: " + e.Error
}

func verifyRecords(c *cli.Context) error {
	var entries []recordEntry
	switch {
	case c.NArg() > 1:
		return badInput(errors.New("records verify takes at most one file"))
	case c.NArg() == 1:
		sealed, err := os.ReadFile(c.Args().First())
		if err != nil {
			return badInput(err)
		}
		e := inspect(sealed, time.Now())
		// Of a file nobody can tell when it came in: only the clock is left.
		if past := -e.TTLLeft; e.Valid && past > 0 {
			e.Valid, e.Error = false, fmt.Sprintf("%v %s ago, by this machine's clock", capacity.ErrExpired, seconds(past))
		}
		entries = []recordEntry{e}
		if c.Bool("json") {
			if err := printJSON(c, entries); err != nil {
				return err
			}
		}
	default:
		var done bool
		var err error
		var list recordList
		if list, done, err = readRecords(c); done {
			return err
		}
		entries = list.Records
		// What a node says of its records is not proof: check the bytes.
		for i, e := range entries {
			checked := inspect(e.Sealed, time.Now())
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
		known := namesIn(entries)
		table(terminalOf(c), "NODE\t…VERDICT\tSIGNER\tSIGNER = NODE\tSEQ\tAGE\tTTL LEFT\tBYTES", func(row func(...any)) {
			for _, e := range entries {
				if e.Record == nil {
					row("-", styled{verdict(e), bad}, or(shortID(e.Signer), "-"), "-", "-", "-", "-", e.Bytes)
					continue
				}
				mark := good
				if !e.Valid {
					mark = bad
				}
				row(called(known.of(e.Node)), styled{verdict(e), mark}, shortID(e.Signer), flagged(e.Node == e.Signer), e.Record.Seq, seconds(e.Age), seconds(e.TTLLeft), e.Bytes)
			}
		})
	}
	if failed > 0 {
		return cli.Exit(fmt.Sprintf("%d of %d records are bad", failed, len(entries)), exitFailure)
	}
	return nil
}

func streamsCommand() *cli.Command {
	return &cli.Command{
		Name: "streams", Usage: "the streams of the network: list, tree, end",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "all streams", Flags: adminFlags(), Action: func(c *cli.Context) error {
				var all streamList
				if done, err := get(c, "/streams", &all); done {
					return err
				}
				switch {
				case len(all.Streams) > 0:
					printStreams(terminalOf(c), all.Streams)
				case all.whole():
					fmt.Fprintln(c.App.Writer, "no streams: publish one with weir publish --pattern http://HOST:PORT/whip/NAME")
				}
				return missing(c.App.Writer, all.Hearing, all.Silent)
			}},
			{Name: "end", Usage: "end a stream that is published at this node", ArgsUsage: "STREAM", Flags: adminFlags(), Action: endStream},
			{Name: "tree", Usage: "who carries a stream", ArgsUsage: "STREAM", Flags: adminFlags(), Action: func(c *cli.Context) error {
				if c.NArg() != 1 {
					return badInput(errors.New("streams tree takes the name of one stream"))
				}
				name := c.Args().First()
				var all streamList
				if done, err := get(c, "/streams", &all); done {
					return err
				}
				i := slices.IndexFunc(all.Streams, func(s streamEntry) bool { return s.Stream == name })
				switch {
				case i >= 0:
					printTree(terminalOf(c), all.Streams[i])
				case all.whole():
					return cli.Exit(fmt.Sprintf("nobody carries a stream %q now; see weir streams list", name), exitFailure)
				default:
					fmt.Fprintf(c.App.Writer, "whether anybody carries a stream %q now is not known\n", name)
					if err := missing(c.App.Writer, all.Hearing, all.Silent); err != nil {
						return err
					}
					return cli.Exit("", exitConnection)
				}
				return missing(c.App.Writer, all.Hearing, all.Silent)
			}},
		},
	}
}

func printStreams(w terminal, all []streamEntry) {
	table(w, "STREAM\tORIGIN\tVIEWERS\tCARRIERS\tDEPTH\tTRACKS", func(row func(...any)) {
		for _, s := range all {
			known := namesOfCarriers(s)
			origin, depth := "-", 0
			for _, k := range s.Carriers {
				depth = max(depth, k.Depth)
				if k.Origin {
					origin = known.of(k.Node)
				}
			}
			row(styled{s.Stream, strong}, origin, s.Viewers, len(s.Carriers), depth, strings.Join(s.Tracks, " "))
		}
	})
}

// printTree draws who pulls a stream from whom. A carrier whose parent is not
// known, since records are seconds old, stands at the top.
func printTree(w terminal, s streamEntry) {
	known := namesOfCarriers(s)
	fmt.Fprintf(w, "%s  %s  %s\n", w.paint(strong, s.Stream), plainText(strings.Join(s.Tracks, " ")), count(s.Viewers, "viewer", "viewers"))
	children := map[peer.ID][]carrierEntry{}
	here := map[peer.ID]bool{}
	for _, k := range s.Carriers {
		here[k.Node] = true
	}
	var roots []carrierEntry
	for _, k := range s.Carriers {
		if here[k.Parent] && k.Parent != k.Node {
			children[k.Parent] = append(children[k.Parent], k)
		} else {
			roots = append(roots, k)
		}
	}
	var draw func(k carrierEntry, indent string, last bool, depth int)
	draw = func(k carrierEntry, indent string, last bool, depth int) {
		branch, next := "├─ ", "│  "
		if last {
			branch, next = "└─ ", "   "
		}
		what := "relay"
		if k.Origin {
			what = "origin"
		}
		line := fmt.Sprintf("%s%s%s  %s  %s  %s", indent, branch, w.paint(strong, known.of(k.Node)), plainText(k.URL), what, count(k.Viewers, "viewer", "viewers"))
		if !k.Origin {
			line += fmt.Sprintf("  link %.1f ms", k.ParentRTT)
		}
		fmt.Fprintln(w, line)
		if depth > len(s.Carriers) {
			return // records that contradict each other
		}
		for i, child := range children[k.Node] {
			draw(child, indent+next, i == len(children[k.Node])-1, depth+1)
		}
	}
	for i, k := range roots {
		draw(k, "", i == len(roots)-1, 0)
	}
}

func selectCommand() *cli.Command {
	return &cli.Command{
		Name: "select", Usage: "which node would be chosen now, and why",
		Description: "Asks the running node to choose as it would for a client that it cannot take\n" +
			"itself. Nothing is reserved.",
		Flags: adminFlags(
			&cli.BoolFlag{Name: "explain", Usage: "every candidate, with its score by term or the rule that rejected it"},
			&cli.StringFlag{Name: "need", Usage: "uplink needed, such as 5mbps", Value: "2.5mbps"},
			&cli.StringFlag{Name: "purpose", Usage: "view, publish or cascade", Value: "view"},
			&cli.StringFlag{Name: "stream", Usage: "`NAME` of the stream; needed for cascade"},
			&cli.StringFlag{Name: "region", Usage: "`LABEL` to prefer"},
			&cli.StringFlag{Name: "from", Usage: "`ADDR` of the admin API of the node that is to choose, if not --admin"},
		),
		Action: func(c *cli.Context) error {
			if from := c.String("from"); from != "" {
				if err := c.Set("admin", from); err != nil {
					return badInput(err)
				}
			}
			q := url.Values{"uplink": {c.String("need")}, "purpose": {c.String("purpose")}, "stream": {c.String("stream")}, "region": {c.String("region")}}
			var d dht.Decision
			if done, err := get(c, "/select?"+q.Encode(), &d); done {
				return err
			}
			return printDecision(terminalOf(c), d, namesOf(c), c.Bool("explain"))
		},
	}
}

func printDecision(w terminal, d dht.Decision, known nodeNames, explain bool) error {
	passed := 0
	for _, v := range d.Verdicts {
		if v.Rule == "" {
			passed++
		}
	}
	if explain {
		pairs(w, func(row func(string, ...any)) {
			row("need", fmt.Sprintf("%s, %s, %d packets/s", d.Need.Purpose, bits(d.Need.Uplink), d.Need.Packets), prefixed(", stream ", d.Need.Stream), prefixed(", region ", d.Need.Region))
			row("found", fmt.Sprintf("%s held, %s, %s policy %d; %s, %s, %.1f ms", count(d.Held, "record", "records"), count(len(d.Verdicts), "candidate", "candidates"),
				count(passed, "passes", "pass"), d.Policy, count(d.Messages, "message", "messages"), count(int(d.Bytes), "byte", "bytes"), d.FindMillis))
			for _, a := range d.Asked {
				row("asked", fmt.Sprintf("%s: %s in %.1f ms%s", known.of(a.Holder), count(a.Records, "record", "records"), a.Millis, prefixed("; ", a.Err)))
			}
			if silent := d.Hearing.String(); silent != "" {
				row("silent", plainText(silent))
			}
			for _, rule := range slices.Sorted(keys(d.Rejected)) {
				row("holder", fmt.Sprintf("rejected %d by rule %s", d.Rejected[rule], rule))
			}
		})
		fmt.Fprintln(w)
		printVerdicts(w, d, known)
		fmt.Fprintln(w)
	}
	if passed == 0 {
		return cli.Exit("nobody would be chosen: "+plainText(or(d.Refused, "no candidate passes")), exitFailure)
	}
	best := d.Verdicts[0]
	fmt.Fprintf(w, "best is %s  %s  score %.3f; a real placement draws among the best by score, and reserves\n",
		w.paint(strong, known.of(best.Node)), plainText(best.URL), best.Score)
	return nil
}

// printVerdicts prints the candidates of a placement: passed first, best first.
func printVerdicts(w terminal, d dht.Decision, known nodeNames) {
	table(w, "NODE\tSCORE\tSTRESS\tRTT\tAGE\tREGION\t…BY TERM, OR REJECTED BY", func(row func(...any)) {
		for _, v := range d.Verdicts {
			why := styled{"rule " + v.Rule, warn}
			if v.Rule == "" {
				why = styled{byTerm(v.Terms), plain}
			}
			row(called(known.of(v.Node)), fmt.Sprintf("%.3f", v.Score), fmt.Sprintf("%.2f", v.Stress), ms(v.RTT), seconds(v.Age), or(v.Region, "-"), why)
		}
	})
}

func keys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// What follows turns values into words.

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

// byTerm is a score as its terms make it up.
func byTerm(terms []capacity.TermScore) string {
	var list []string
	for _, t := range terms {
		list = append(list, fmt.Sprintf("%s %.3f", t.Name, t.Score))
	}
	return strings.Join(list, ", ")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func ms(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f ms", v)
}

// connection says how a peer is connected, and who dialled.
func connection(p dht.PeerInfo) string {
	switch {
	case !p.Connected:
		return "no"
	case !p.Member:
		return p.Transport + " " + p.Direction + ", not of this network"
	}
	return p.Transport + " " + p.Direction
}

func coordinateError(p dht.PeerInfo) string {
	if p.CoordinateError == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", p.CoordinateError)
}

// clockOffset says how far a peer's clock is ahead of ours.
func clockOffset(p dht.PeerInfo) string {
	switch off := p.ClockOffset; {
	case p.Told.IsZero():
		return "-"
	case off > -10 && off < 10: // what a measurement over a network is worth
		return fmt.Sprintf("%+.1f ms", off)
	case off > -1000 && off < 1000:
		return fmt.Sprintf("%+.0f ms", off)
	default:
		return fmt.Sprintf("%+.1f s", off/1000)
	}
}

// holdings say what a peer holds.
func holdings(p dht.PeerInfo) string {
	switch {
	case p.Told.IsZero():
		return "-"
	case p.Holds == 0:
		return "nothing"
	}
	return fmt.Sprintf("%s in %s", count(p.Holds, "record", "records"), count(p.HoldsTopics, "topic", "topics"))
}

// addressOf is the address that a connection to p uses, or could.
func addressOf(p dht.PeerInfo) string {
	for _, a := range p.Addrs {
		if _, err := a.ValueForProtocol(multiaddr.P_QUIC_V1); (err == nil) == (p.Transport == "quic") {
			return a.String()
		}
	}
	if len(p.Addrs) > 0 {
		return p.Addrs[0].String()
	}
	return "-"
}

func seconds(millis float64) string { return fmt.Sprintf("%.1f s", millis/1000) }

func usage(used, limit int64) string {
	if limit == 0 {
		return fmt.Sprintf("%d of any", used)
	}
	return fmt.Sprintf("%d of %d", used, limit)
}

func bits(v int64) string {
	switch {
	case v >= 1e9:
		return fmt.Sprintf("%.1f Gbit/s", float64(v)/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.1f Mbit/s", float64(v)/1e6)
	case v >= 1e3:
		return fmt.Sprintf("%.0f kbit/s", float64(v)/1e3)
	}
	return fmt.Sprintf("%d bit/s", v)
}
