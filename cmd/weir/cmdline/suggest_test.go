package cmdline

import (
	"errors"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

func TestTypos(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"node", "node", 0}, {"nod", "node", 1}, {"stauts", "status", 1}, {"lsit", "list", 1}, {"abc", "", 3}, {"kitten", "sitting", 3}} {
		if got := typos(c.a, c.b); got != c.want {
			t.Errorf("typos(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// Who gives a flag by its former name learns the new one.
func TestFlagsThatWereRenamed(t *testing.T) {
	flags := []cli.Flag{&cli.StringFlag{Name: "discovery"}, &cli.StringSliceFlag{Name: "server"}}
	for given, want := range map[string]string{
		"-holders": "--holders has another name now: --discovery kademlia", "-holder=/ip4/127.0.0.1": "--holder has another name now: --server",
		"-holder-list": "flag provided but not defined", "-discovry": "did you mean --discovery?",
	} {
		if err := UnknownFlag(errors.New("flag provided but not defined: "+given), flags); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want a word of %q", given, err, want)
		}
	}
}
