package cmdline

import (
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// known are commands such as a program has.
var known = []*cli.Command{
	{Name: "streams", Subcommands: []*cli.Command{{Name: "tree", Flags: []cli.Flag{&cli.StringFlag{Name: "admin"}, &cli.BoolFlag{Name: "json"}}}}},
	{Name: "view", Flags: []cli.Flag{&cli.DurationFlag{Name: "duration"}, &cli.BoolFlag{Name: "json"}}},
	{Name: "status", Flags: []cli.Flag{&cli.BoolFlag{Name: "json"}}},
	{Name: "publish", Flags: []cli.Flag{&cli.BoolFlag{Name: "pattern"}}},
	{Name: "records", Subcommands: []*cli.Command{{Name: "get", Flags: []cli.Flag{&cli.StringFlag{Name: "out"}, &cli.BoolFlag{Name: "json"}}}}},
}

func TestFlagsFirst(t *testing.T) {
	for in, want := range map[string]string{
		"weir streams tree demo --admin x:1":        "weir streams tree --admin x:1 demo",
		"weir streams tree demo --admin=x:1 --json": "weir streams tree --admin=x:1 --json demo",
		"weir view http://a --duration 3s --json":   "weir view --duration 3s --json http://a",
		"weir status --json":                        "weir status --json",
		"weir publish --pattern http://a":           "weir publish --pattern http://a",
		"weir publish http://a -- --odd.ivf":        "weir publish http://a -- --odd.ivf",
		"weir records get PEER --out f --json":      "weir records get --out f --json PEER",
		"weir --version":                            "weir --version",
		"weir nonsense --admin x":                   "weir nonsense --admin x",
		"weir":                                      "weir",
	} {
		if got := strings.Join(flagsFirst(strings.Fields(in), known), " "); got != want {
			t.Errorf("%s became\n%s, want\n%s", in, got, want)
		}
	}
}
