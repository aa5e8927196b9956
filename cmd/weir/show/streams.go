package show

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
)

func StreamsCommand() *cli.Command {
	return &cli.Command{
		Name: "streams", Usage: "the streams of the network: list, tree, end",
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "all streams", Flags: ask.Flags(), Action: func(c *cli.Context) error {
				var all api.Streams
				if done, err := ask.Get(c, "/streams", &all); done {
					return err
				}
				switch {
				case len(all.Streams) > 0:
					printStreams(term.Of(c), all.Streams)
				case all.Whole():
					fmt.Fprintln(c.App.Writer, "no streams: publish one with weir publish --pattern http://HOST:PORT/whip/NAME")
				}
				return missing(c.App.Writer, all.Hearing, all.Silent)
			}},
			{Name: "end", Usage: "end a stream that is published at this node", ArgsUsage: "STREAM", Flags: ask.Flags(), Action: endStream},
			{Name: "tree", Usage: "who carries a stream", ArgsUsage: "STREAM", Flags: ask.Flags(), Action: func(c *cli.Context) error {
				if c.NArg() != 1 {
					return cmdline.BadInput(errors.New("streams tree takes the name of one stream"))
				}
				name := c.Args().First()
				var all api.Streams
				if done, err := ask.Get(c, "/streams", &all); done {
					return err
				}
				i := slices.IndexFunc(all.Streams, func(s api.Stream) bool { return s.Stream == name })
				switch {
				case i >= 0:
					PrintTree(term.Of(c), all.Streams[i])
				case all.Whole():
					return cli.Exit(fmt.Sprintf("no node carries a stream %q now; see weir streams list", name), cmdline.ExitFailure)
				default:
					fmt.Fprintf(c.App.Writer, "whether a node carries a stream %q now is not known\n", name)
					if err := missing(c.App.Writer, all.Hearing, all.Silent); err != nil {
						return err
					}
					return cli.Exit("", cmdline.ExitConnection)
				}
				return missing(c.App.Writer, all.Hearing, all.Silent)
			}},
		},
	}
}

func printStreams(w term.Terminal, all []api.Stream) {
	term.Table(w, "STREAM\tORIGIN\tVIEWERS\tCARRIERS\tDEPTH\tTRACKS", func(row func(...any)) {
		for _, s := range all {
			known := names.OfCarriers(s)
			origin, depth := "-", 0
			for _, k := range s.Carriers {
				depth = max(depth, k.Depth)
				if k.Origin {
					origin = known.Of(k.Node)
				}
			}
			row(term.Strong.Of(s.Stream), origin, s.Viewers, len(s.Carriers), depth, strings.Join(s.Tracks, " "))
		}
	})
}

// PrintTree draws the tree of pulls of a stream. A carrier whose parent is
// unknown, because records are seconds old, is at the top.
func PrintTree(w term.Terminal, s api.Stream) {
	known := names.OfCarriers(s)
	fmt.Fprintf(w, "%s  %s  %s\n", w.Paint(term.Strong, s.Stream), term.Printable(strings.Join(s.Tracks, " ")), term.Count(s.Viewers, "viewer", "viewers"))
	children := map[peer.ID][]api.Carrier{}
	here := map[peer.ID]bool{}
	for _, k := range s.Carriers {
		here[k.Node] = true
	}
	var roots []api.Carrier
	for _, k := range s.Carriers {
		if here[k.Parent] && k.Parent != k.Node {
			children[k.Parent] = append(children[k.Parent], k)
		} else {
			roots = append(roots, k)
		}
	}
	var draw func(k api.Carrier, indent string, last bool, depth int)
	draw = func(k api.Carrier, indent string, last bool, depth int) {
		branch, next := "├─ ", "│  "
		if last {
			branch, next = "└─ ", "   "
		}
		what := "relay"
		if k.Origin {
			what = "origin"
		}
		if k.State != capacity.Live {
			what = k.State.String() + " " + what
		}
		line := fmt.Sprintf("%s%s%s  %s  %s  %s", indent, branch, w.Paint(term.Strong, known.Of(k.Node)), term.Printable(k.URL), what, term.Count(k.Viewers, "viewer", "viewers"))
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
