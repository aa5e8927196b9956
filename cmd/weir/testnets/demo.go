package testnets

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/capacity/task"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/media"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/directory"
	"weir/sfu"
	"weir/sfu/client"
	"weir/testnet"
)

const (
	demoStream = "demo"
	// demoPause is the time between two viewers, so that people can follow.
	demoPause = 300 * time.Millisecond
	// demoSettle is how long events may come after their cause.
	demoSettle = 150 * time.Millisecond
	// demoFigures is the interval between two lines of figures.
	demoFigures = 5 * time.Second
	// demoFrame is how long a viewer may take to its first frame.
	demoFrame = 10 * time.Second
	// demoRecords is how long the records may take to include every viewer: one
	// is published every five seconds even if little has changed.
	demoRecords = 6 * time.Second
	// demoLast is the time at the end during which every viewer must get frames.
	demoLast = time.Second
)

func demoCommand() *cli.Command {
	return &cli.Command{
		Name: "demo", Usage: "show an overloaded node find help and cascade to it",
		Description: "Starts nodes, publishes the built-in clip to n1, and lets viewers come to n1 until\n" +
			"it is full, and a few more. Runs until it is interrupted. With --seconds it ends by\n" +
			"itself, and its exit code is 0 only if media flowed over a cascade link.",
		Flags: testnetFlags(append(testnetDiscovery(), testnetTLS(),
			&cli.IntFlag{Name: "seconds", Usage: "end after `N` seconds; 0: when interrupted", EnvVars: []string{"DEMO_SECONDS"}},
			&cli.IntFlag{Name: "nodes", Aliases: []string{"n"}, Usage: "how many `NODES`", Value: 5, EnvVars: cmdline.Env("NODES")},
			&cli.IntFlag{Name: "region-count", Usage: "nodes are in one of `R` regions in turn, r1 to rR", Value: 2, EnvVars: cmdline.Env("REGION_COUNT")},
			&cli.IntFlag{Name: "session-limit", Usage: "most `SESSIONS` of n1, the publisher's included", Value: 3},
			&cli.StringFlag{Name: "overflow", Usage: "what n1 does when it is full: redirect or refuse", Value: string(sfu.Redirect)},
			&cli.IntFlag{Name: "viewers", Usage: "how many `VIEWERS` come to n1", Value: 6},
			&cli.BoolFlag{Name: "direct", Usage: "one more viewer comes to another node", Value: true},
		)...),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return cmdline.BadInput(fmt.Errorf("weir testnet demo takes no arguments, but got %q", c.Args().First()))
			}
			overflow := sfu.Overflow(c.String("overflow"))
			if overflow != sfu.Redirect && overflow != sfu.Refuse { // a relayed viewer does not learn which node serves it
				return cmdline.BadInput(fmt.Errorf("--overflow %s: the demo shows redirect and refuse", overflow))
			}
			cfg := demoConfig{
				discovery: directory.Mode(c.String("discovery")), brokers: c.Int("brokers"),
				dir: c.String("dir"), tls: c.Bool("tls"), nodes: c.Int("nodes"), regions: c.Int("region-count"), sessionLimit: c.Int("session-limit"),
				overflow: overflow, viewers: c.Int("viewers"), direct: c.Bool("direct"), length: time.Duration(c.Int("seconds")) * time.Second,
			}
			if cfg.length < 0 || cfg.sessionLimit < 1 || cfg.viewers < 0 {
				return cmdline.BadInput(errors.New("--seconds and --viewers must not be negative, and --session-limit at least 1"))
			}
			return testnetExit(runDemo(c.Context, cfg, newScreen(c.App.Writer)))
		},
	}
}

type demoConfig struct {
	discovery    directory.Mode
	brokers      int
	dir          string
	tls          bool
	nodes        int
	regions      int
	sessionLimit int
	overflow     sfu.Overflow
	viewers      int
	direct       bool
	length       time.Duration // 0: until interrupted
}

// A demo is one run. All fields but those used by listen's goroutines belong to
// the goroutine of runDemo.
type demo struct {
	cfg     demoConfig
	screen  *screen
	net     *testnet.Network
	http    *http.Client // trusts the nodes; nil: the default client
	first   testnet.Node
	names   map[peer.ID]string
	origin  string // the node the publisher sends to
	viewers []*demoViewer
}

// A demoViewer is one viewer that came.
type demoViewer struct {
	name   string
	asked  string // the node it went to
	served string // the node that serves it; empty if none does
	why    string // it is not served
	viewer *client.Viewer
	before client.Stats // at the last look
	lost   bool
}

// runDemo runs the whole demo and removes its network. Its error says which
// part did not work.
func runDemo(ctx context.Context, cfg demoConfig, screen *screen) (err error) {
	d := &demo{cfg: cfg, screen: screen, names: map[peer.ID]string{}}
	screen.title("weir: %d nodes on this machine, and a node that finds help when it is full", cfg.nodes)
	if d.net, err = testnet.Up(ctx, testnet.Config{
		Dir: cfg.dir, N: cfg.nodes, TLS: cfg.tls, Regions: cfg.regions, Discovery: cfg.discovery, Brokers: cfg.brokers,
		NodeFlags: func(i int) []string {
			if i > 1 {
				return nil
			}
			return []string{"--session-limit", fmt.Sprint(cfg.sessionLimit), "--overflow", string(cfg.overflow)}
		},
	}); err != nil {
		return interrupted(ctx, err)
	}
	defer func() {
		screen.say(time.Now(), "end", "ending the nodes; their logs are in %s", d.net.Dir())
		screen.flush()
		if e := d.net.Down(); e != nil && err == nil {
			err = e
		}
		if e := d.net.Close(); e != nil && err == nil {
			err = e
		}
	}()
	if d.http, err = media.TrustingClient(d.net.Authority()); err != nil {
		return err
	}
	d.first = d.net.Node("n1")
	for _, n := range d.net.Nodes() {
		d.names[n.PeerID] = n.Name
	}
	d.showNodes()

	listening, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup // one per node, listening to its events
	defer wg.Wait()
	defer stop()
	for _, n := range d.net.Nodes() {
		wg.Go(func() { d.listen(listening, n) })
	}

	connecting, cancel := context.WithTimeout(ctx, media.ConnectTime)
	defer cancel()
	pub, err := client.Publish(connecting, client.PublishConfig{URL: d.first.HTTP + "/whip/" + demoStream, Media: client.Pattern(), HTTP: d.http})
	if err != nil {
		return interrupted(ctx, fmt.Errorf("publish to n1: %w", err))
	}
	published := make(chan error, 1)
	sending, stopSending := context.WithCancel(ctx)
	go func() { published <- pub.Run(sending) }()
	defer func() {
		stopSending()
		<-published
		d.leave()
		_ = pub.Close() // the node is about to end anyway
		stop()
	}()
	d.origin = d.nodeAt(pub.NodeURL())
	screen.say(time.Now(), "publisher", "sends the built-in clip, VP8 and Opus, to %s: connected after %s", d.origin, term.Elapsed(pub.Stats().Connected))

	for i := range cfg.viewers {
		if err := d.arrive(ctx, fmt.Sprintf("viewer %d", i+1), d.first); err != nil {
			return interrupted(ctx, err)
		}
	}
	if cfg.direct {
		if err := d.arrive(ctx, fmt.Sprintf("viewer %d", cfg.viewers+1), d.idle()); err != nil {
			return interrupted(ctx, err)
		}
	}
	if err := d.showNetwork(ctx); err != nil {
		return interrupted(ctx, err)
	}
	return d.watch(ctx)
}

// interrupted replaces err with an error for people if an interrupt caused it.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return cli.Exit("interrupted before it was over", cmdline.ExitFailure)
	}
	return err
}

func (d *demo) showNodes() {
	text := []string{fmt.Sprintf("%d nodes are ready, and each sees the records of all", len(d.names))}
	for _, n := range d.net.Nodes() {
		limit := ""
		if n.Name == d.first.Name {
			limit = fmt.Sprintf("  takes %d sessions, then: %s", d.cfg.sessionLimit, d.cfg.overflow)
		}
		text = append(text, fmt.Sprintf("%s  %s  %s  %s%s", n.Name, names.Short(n.PeerID), cmp.Or(n.Region, "-"), n.HTTP, limit))
	}
	d.screen.add(screenLine{time.Now(), "up", text})
	d.screen.flush()
}

// name returns the demo's name for a node.
func (d *demo) name(id peer.ID) string { return cmp.Or(d.names[id], names.Short(id)) }

// nodeAt returns the name of the node whose URL url is.
func (d *demo) nodeAt(url string) string {
	for _, n := range d.net.Nodes() {
		if strings.HasPrefix(url, n.HTTP+"/") {
			return n.Name
		}
	}
	return url
}

// idle returns the last node without viewers, or else the last node.
func (d *demo) idle() testnet.Node {
	nodes := d.net.Nodes()
	for _, n := range slices.Backward(nodes) {
		if n.Name != d.origin && !slices.ContainsFunc(d.viewers, func(v *demoViewer) bool { return v.served == n.Name }) {
			return n
		}
	}
	return nodes[len(nodes)-1]
}

// arrive sends a viewer to a node and prints the outcome. The error is the
// context's.
func (d *demo) arrive(ctx context.Context, name string, at testnet.Node) error {
	v := &demoViewer{name: name, asked: at.Name}
	d.viewers = append(d.viewers, v)
	connecting, cancel := context.WithTimeout(ctx, media.ConnectTime)
	defer cancel()
	var err error
	v.viewer, err = client.View(connecting, client.ViewConfig{URL: at.HTTP + "/whep/" + demoStream, HTTP: d.http})
	if err != nil {
		v.why = err.Error()
		d.screen.say(time.Now(), name, "asks %s: not served: %v", at.Name, err)
		return d.settle(ctx)
	}
	late := time.NewTimer(demoFrame)
	defer late.Stop()
	select {
	case <-v.viewer.FirstFrame():
	case <-v.viewer.Done():
	case <-late.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	s := v.viewer.Stats()
	v.served = d.nodeAt(s.URL)
	how := "served by it"
	if v.served != v.asked {
		how = "served by " + v.served
	}
	if len(s.Hops) > 1 {
		how = fmt.Sprintf("redirected by 307, served by %s", v.served)
	}
	if s.FirstFrame == 0 {
		d.screen.say(time.Now(), name, "asks %s: %s, but no frame came", at.Name, how)
	} else {
		d.screen.say(time.Now(), name, "asks %s: %s, first frame after %s", at.Name, how, term.Elapsed(s.FirstFrame))
	}
	return d.settle(ctx)
}

// settle prints the events since the last call, once they have all come in.
func (d *demo) settle(ctx context.Context) error {
	if err := task.Sleep(ctx, demoSettle); err != nil {
		return err
	}
	d.screen.flush()
	return task.Sleep(ctx, demoPause-demoSettle)
}

// listen prints the events of a node, until ctx or the node ends.
func (d *demo) listen(ctx context.Context, n testnet.Node) {
	err := n.API().Events(ctx, "/events", func(data []byte) error {
		var e sfu.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return err
		}
		d.tell(ctx, n, e)
		return nil
	})
	if ctx.Err() == nil {
		d.screen.say(time.Now(), n.Name, "is not heard any more: %v", err)
	}
}

// tell prints the meaning of e, if it is of interest here.
func (d *demo) tell(ctx context.Context, n testnet.Node, e sfu.Event) {
	say := func(format string, args ...any) []string { return []string{fmt.Sprintf(format, args...)} }
	var text []string
	switch e.Kind {
	case "redirect":
		why, how, _ := strings.Cut(e.Detail, "; ")
		text = append(say("hands the client on to %s, since it is full itself: %s", d.name(e.Peer), strings.TrimPrefix(why, "refused: ")), how)
		text = append(text, d.decision(ctx, n, e, false)...)
	case "refused":
		text = say("refuses the client: %s", strings.TrimPrefix(e.Detail, "refused: "))
	case "link.opened":
		var links []sfu.LinkStatus
		if n.Get(ctx, "/links", &links) != nil || !slices.ContainsFunc(links, func(l sfu.LinkStatus) bool { return l.Peer == e.Peer && l.Dialer }) {
			return // the other end reports it
		}
		text = say("cascade link to %s opened in %.1f ms", d.name(e.Peer), e.Elapsed)
	case "pull.ready":
		text = append(say("pulls %s from %s: ready after %.1f ms", e.Stream, d.name(e.Peer), e.Elapsed), d.decision(ctx, n, e, true)...)
	case "pull.failed", "pull.lost":
		text = say("%s of %s: %s", e.Kind, e.Stream, e.Detail)
	case "pull.resumed":
		text = say("pulls %s from %s now, after %.1f ms", e.Stream, d.name(e.Peer), e.Elapsed)
	case "link.closed":
		text = say("cascade link to %s closed: %s", d.name(e.Peer), e.Detail)
	default:
		return
	}
	d.screen.add(screenLine{e.Time, n.Name, text})
}

// decision explains the choice that led to e: the node to pull from, or the
// target of a redirect.
func (d *demo) decision(ctx context.Context, n testnet.Node, e sfu.Event, pull bool) []string {
	var all []dht.Decision
	if err := n.Get(ctx, "/decisions", &all); err != nil {
		return nil
	}
	for _, dec := range slices.Backward(all) {
		if dec.Chosen != e.Peer || dec.Need.Stream != e.Stream || (dec.Need.Purpose == capacity.Cascade) != pull {
			continue
		}
		return d.explain(dec)
	}
	if pull {
		return []string{"as the ticket says: no search was needed"}
	}
	return nil
}

// leave ends all viewers.
func (d *demo) leave() {
	var wg sync.WaitGroup
	for _, v := range d.viewers {
		if v.viewer != nil {
			wg.Go(func() { _ = v.viewer.Close() }) // the nodes are about to end anyway
		}
	}
	wg.Wait()
}
