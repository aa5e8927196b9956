package show

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
	"weir/dht/scale"
	"weir/sfu"
)

func StatusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "what a running node is doing", Flags: ask.Flags(),
		Action: func(c *cli.Context) error {
			var s api.Status
			if done, err := ask.Get(c, "/status", &s); done {
				return err
			}
			var links []sfu.LinkStatus
			if _, err := ask.Get(c, "/links", &links); err != nil {
				return err
			}
			printStatus(term.Of(c), s, links, ask.NamesOf(c))
			return nil
		},
	}
}

func printStatus(w term.Terminal, s api.Status, links []sfu.LinkStatus, known names.Names) {
	term.Pairs(w, func(row func(string, ...any)) {
		row("node", term.Strong.Of(cmp.Or(s.Name, "-")), "  ", s.PeerID)
		row("release", s.Release, ", up ", (time.Duration(s.Uptime) * time.Millisecond).Round(time.Second))
		row("network", s.Network, ", ", term.Count(s.Peers, "peer", "peers"), " connected, holds ", term.Count(s.Holds, "record", "records"))
		row("discovery", discoveryLine(s))
		row("region", cmp.Or(s.Region, "-"))
		row("state", term.StateOf(s.State), fmt.Sprintf(", stress %.2f", s.Stress), drainLine(s.Drain))
		row("sessions", fmt.Sprintf("%s (%s, %s, %s)", term.Used(s.Record.Sessions.Used, s.Record.Sessions.Limit),
			term.Count(s.Publishers, "publisher", "publishers"), term.Count(s.Viewers, "viewer", "viewers"), term.Count(s.Leases, "lease", "leases")))
		row("streams", s.Streams, " over ", term.Count(s.Links, "cascade link", "cascade links"))
		row("uplink", term.Bitrate(s.Record.Uplink.Used), " of ", term.Bitrate(s.Record.Uplink.Limit))
		row("cpu", cpuLine(s.Record))
		row("delay", term.Millis(capacity.Milliseconds(s.Record.Delay)))
		row("console", s.HTTP)
		if s.TLS != nil {
			row("certificate", strings.Join(s.TLS.Names, ", "), ", until ", term.Stamp(s.TLS.NotAfter), ", by ", s.TLS.Issuer)
		}
		row("media", "udp ", s.Media)
		if s.Releasable {
			row("idle", "releasable")
		}
		for _, region := range slices.Sorted(maps.Keys(s.Provision)) {
			row("provision", "region ", cmp.Or(region, "-"), ": ", provisionLine(s.Provision[region], time.Now()))
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

func printLinks(w term.Terminal, links []sfu.LinkStatus, known names.Names) {
	term.Table(w, "LINK\tSTATE\tRTT\tLOST\tPULLS IN\tPULLS OUT\tPACKETS IN\tPACKETS OUT\tPEER", func(row func(...any)) {
		for _, l := range links {
			row(term.Called(known.Of(l.Peer)), l.State, term.Millis(l.RTT), l.Lost, cmp.Or(strings.Join(l.PullsIn, " "), "-"), cmp.Or(strings.Join(l.PullsOut, " "), "-"), l.PacketsIn, l.PacketsOut, names.Short(l.Peer))
		}
	})
}

// cpuLine gives the CPU usage, and whether it counts as load.
func cpuLine(r capacity.Record) string {
	line := fmt.Sprintf("%.0f %% of %s", r.CPU*100, cores(r.Cores))
	if r.CPULimit == 0 {
		line += ", not counted (--cpu-limit 0)"
	}
	return line
}

// cpuCell is cpuLine for a table: usage without a limit is no load.
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

// provisionLine is the text of weir status about a region.
func provisionLine(s scale.Status, now time.Time) string {
	line := s.Phase
	if s.LastRun.IsZero() {
		return line + ", no server asked for yet"
	}
	line += fmt.Sprintf(", last run %v ago", now.Sub(s.LastRun).Round(time.Second))
	if wait := s.Cooldown.Sub(now).Round(time.Second); wait > 0 {
		line += fmt.Sprintf(", none before %v", wait)
	}
	if s.Failures > 0 {
		line += fmt.Sprintf(", %s in a row: %s", term.Count(s.Failures, "failure", "failures"), s.Last)
	}
	return line
}

// drainLine is the text of weir status about a drain, after the state.
func drainLine(s api.Drain) string {
	if !s.Draining {
		return ""
	}
	line := fmt.Sprintf("; %s, %d left", s.Reason, s.Left)
	if s.Exit {
		line += ", ends when empty"
	}
	if s.Exit && s.Deadline != nil {
		line += " or at " + s.Deadline.Local().Format(time.TimeOnly)
	}
	return line
}

// discoveryLine is the line of weir status about discovery.
func discoveryLine(s api.Status) string {
	if !s.Discovery.Listed() {
		return string(s.Discovery)
	}
	return fmt.Sprintf("%s, %s", s.Discovery, term.Count(s.Servers, "server listed", "servers listed"))
}
