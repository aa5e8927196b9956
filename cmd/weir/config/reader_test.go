package config

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

var flags = []cli.Flag{
	&cli.StringFlag{Name: "region", Aliases: []string{"r"}},
	&cli.StringSliceFlag{Name: "seed"},
	&cli.IntFlag{Name: "session-limit"},
	&cli.DurationFlag{Name: "linger"},
	&cli.BoolFlag{Name: "dev"},
}

func TestSettingsOfAFile(t *testing.T) {
	entries, err := Parse("weir.yaml", []byte("# of one machine\nregion: eu\nseed: [a, b]\nsession-limit: 10\nlinger: 1m30s\ndev: true\n"), flags)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name+"="+strings.Join(e.Values, ","))
	}
	if want := []string{"region=eu", "seed=a,b", "session-limit=10", "linger=1m30s", "dev=true"}; !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

// All mistakes are reported with their place, not only the first.
func TestMistakesArePointedAt(t *testing.T) {
	for name, c := range map[string]struct{ text, says string }{
		"an unknown key":    {"region: eu\nsesion-limit: 5\n", `weir.yaml:2:1: there is no setting "sesion-limit" (did you mean session-limit?)`},
		"no unit":           {"linger: 3\n", "weir.yaml:1:9: linger: 3 has no unit"},
		"a list for a word": {"region: [a]\n", "weir.yaml:1:9: "},
		"no YAML":           {"region: \"\n", "weir.yaml:1:10: not YAML"},
		"the second of two": {"x: 1\ny: 2\n", "weir.yaml:2:1: "},
	} {
		_, err := Parse("weir.yaml", []byte(c.text), flags)
		var faults *Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
