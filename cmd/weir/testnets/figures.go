package testnets

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/capacity/task"
	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/show"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/sfu"
)

func (d *demo) explain(dec dht.Decision) []string {
	var candidates, answers []string
	for _, v := range dec.Verdicts {
		if v.Rule != "" {
			candidates = append(candidates, fmt.Sprintf("%s (no: %s)", d.name(v.Node), v.Rule))
		} else {
			candidates = append(candidates, fmt.Sprintf("%s %.2f", d.name(v.Node), v.Score))
		}
	}
	for _, r := range dec.Reservations {
		switch {
		case r.Node == dec.Chosen:
			answers = append(answers, fmt.Sprintf("%s yes, taken, in %.1f ms", d.name(r.Node), r.Elapsed))
		case r.Lease != "":
			answers = append(answers, fmt.Sprintf("%s yes, in %.1f ms, given back", d.name(r.Node), r.Elapsed))
		default:
			answers = append(answers, fmt.Sprintf("%s %s", d.name(r.Node), r.Reason))
		}
	}
	lines := []string{fmt.Sprintf("topic %s, score of each candidate: %s", dec.Topic, strings.Join(candidates, ", "))}
	if len(answers) > 0 {
		lines = append(lines, "asked to reserve: "+strings.Join(answers, "; "))
	}
	return lines
}

// showNetwork prints the records and the stream's tree once the records include
// every viewer, or as they are if that takes long.
func (d *demo) showNetwork(ctx context.Context) error {
	carriers := map[string]bool{d.origin: true}
	served := 0
	for _, v := range d.viewers {
		if v.served != "" {
			carriers[v.served] = true
			served++
		}
	}
	var (
		tree    api.Stream
		records api.Records
	)
	for deadline := time.Now().Add(demoRecords); ; {
		var all api.Streams
		if err := d.first.Get(ctx, "/streams", &all); err != nil {
			return fmt.Errorf("read the streams: %w", err)
		}
		if i := slices.IndexFunc(all.Streams, func(s api.Stream) bool { return s.Stream == demoStream }); i >= 0 {
			tree = all.Streams[i]
		}
		if err := d.first.Get(ctx, "/records", &records); err != nil {
			return fmt.Errorf("read the records: %w", err)
		}
		sessions := int64(0)
		for _, e := range records.Records {
			if e.Record != nil {
				sessions += e.Record.Sessions.Used
			}
		}
		if len(tree.Carriers) == len(carriers) && tree.Viewers == served && sessions == int64(served)+1 || time.Now().After(deadline) {
			break
		}
		if err := task.Sleep(ctx, demoPause); err != nil {
			return err
		}
	}
	d.screen.flush()
	d.screen.title("What the nodes publish about themselves (weir records list)")
	show.PrintRecords(term.Terminal{Writer: d.screen.out}, records.Records)
	d.screen.title("Where each node pulls the stream from (weir streams tree %s)", demoStream)
	if len(tree.Carriers) > 0 {
		show.PrintTree(term.Terminal{Writer: d.screen.out}, tree)
	} else {
		fmt.Fprintln(d.screen.out, "no records of the stream yet")
	}
	d.screen.title("Console: %s", d.first.HTTP)
	fmt.Fprintf(d.screen.out, "More:    weir records list --admin %s\n", strings.TrimPrefix(d.first.Admin, "http://"))
	printTrust(d.screen.out, d.net)
	if d.cfg.length == 0 {
		fmt.Fprintln(d.screen.out, "Ctrl-C ends it all.")
	}
	fmt.Fprintln(d.screen.out)
	return nil
}

// watch prints figures until the run is over, and then judges it.
func (d *demo) watch(ctx context.Context) error {
	var over <-chan time.Time
	if d.cfg.length > 0 {
		t := time.NewTimer(time.Until(d.screen.began.Add(d.cfg.length - demoLast)))
		defer t.Stop()
		over = t.C
	}
	for _, v := range d.viewers {
		if v.viewer != nil {
			v.before = v.viewer.Stats()
		}
	}
	tick := time.NewTicker(demoFigures)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-tick.C:
			d.figures(ctx, time.Since(last))
			last = time.Now()
		case <-over:
			return d.judge(ctx)
		case <-ctx.Done():
			fmt.Fprintln(d.screen.out)
			if d.cfg.length > 0 {
				return interrupted(ctx, nil)
			}
			return nil
		}
	}
}

// figures prints what has come in since the last call.
func (d *demo) figures(ctx context.Context, since time.Duration) {
	var frames, lost uint64
	var rate float64
	served := 0
	relays := map[string]bool{}
	for _, v := range d.viewers {
		if v.viewer == nil || v.lost {
			continue
		}
		s := v.viewer.Stats()
		frames += s.Frames - v.before.Frames
		lost += s.Lost
		rate += s.Since(v.before).Bitrate
		v.before = s
		select {
		case <-v.viewer.Done():
			v.lost = true
			d.screen.say(time.Now(), v.name, "has lost its connection to %s after %d frames", v.served, s.Frames)
			continue
		default:
		}
		served++
		if v.served != d.origin {
			relays[v.served] = true
		}
	}
	var links []string
	for _, n := range d.net.Nodes() {
		if relays[n.Name] {
			links = append(links, fmt.Sprintf("%s %d", n.Name, d.packetsIn(ctx, n.Name)))
		}
	}
	d.screen.say(time.Now(), "figures", "%d viewers get %.0f frames/s and %s in all, %d packets lost; packets in over links: %s",
		served, float64(frames)/since.Seconds(), term.Bitrate(int64(rate)), lost, cmp.Or(strings.Join(links, ", "), "none"))
	d.screen.flush()
}

// packetsIn counts what a node has received of the stream over cascade links.
func (d *demo) packetsIn(ctx context.Context, node string) int64 {
	var links []sfu.LinkStatus
	if err := d.net.Node(node).Get(ctx, "/links", &links); err != nil {
		return 0
	}
	var sum int64
	for _, l := range links {
		if slices.Contains(l.PullsIn, demoStream) {
			sum += l.PacketsIn
		}
	}
	return sum
}

// judge checks that media flowed over cascade links to every viewer at a node
// other than the origin, until the end.
func (d *demo) judge(ctx context.Context) error {
	remote := slices.DeleteFunc(slices.Clone(d.viewers), func(v *demoViewer) bool { return v.viewer == nil || v.served == d.origin })
	for _, v := range remote {
		v.before = v.viewer.Stats()
	}
	if task.Sleep(ctx, demoLast) != nil {
		return interrupted(ctx, nil)
	}
	var good, missing []string
	for _, v := range remote {
		s := v.viewer.Stats()
		packets := d.packetsIn(ctx, v.served)
		switch {
		case s.Frames == 0:
			missing = append(missing, fmt.Sprintf("%s, served by %s, got no frame", v.name, v.served))
		case s.Frames == v.before.Frames:
			missing = append(missing, fmt.Sprintf("%s, served by %s, got no frame in the last %v; its connection is %s", v.name, v.served, demoLast, s.State))
		case packets == 0:
			missing = append(missing, fmt.Sprintf("%s, which serves %s, has received no packet over a cascade link", v.served, v.name))
		default:
			good = append(good, fmt.Sprintf("%s at %s: %d frames; %d packets came to %s over its link", v.name, v.served, s.Frames, packets, v.served))
		}
	}
	if len(remote) == 0 {
		missing = append(missing, fmt.Sprintf("no viewer was served by another node than %s, which has the publisher", d.origin))
		for _, v := range d.viewers {
			if v.why != "" {
				missing = append(missing, fmt.Sprintf("%s: %s", v.name, v.why))
			}
		}
	}
	if len(missing) > 0 {
		return cli.Exit("media did not flow over a cascade link:\n  "+strings.Join(missing, "\n  "), cmdline.ExitFailure)
	}
	d.screen.add(screenLine{time.Now(), "result", append([]string{"media flowed over cascade links"}, good...)})
	d.screen.flush()
	return nil
}
