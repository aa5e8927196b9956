package daemon

import (
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/config"
)

// The environment overrides the file, and flags override both; a list is
// replaced as a whole.
func TestOrderOfSources(t *testing.T) {
	path := writeFile(t, "weir.yaml", `session-limit: 10
stream-limit: 10
fanout: 10
insecure-open: true
listen:
  - /ip4/127.0.0.1/tcp/1
  - /ip4/127.0.0.1/tcp/2
http: 127.0.0.1:0
`)
	t.Setenv("WEIR_STREAM_LIMIT", "20")
	t.Setenv("WEIR_FANOUT", "20")
	t.Setenv("WEIR_LISTEN", "/ip4/127.0.0.1/tcp/3")
	t.Setenv("WEIR_CONFIG", path)
	l, err := Sources{Args: []string{"--fanout", "30", "--insecure-open=false"}}.Load()
	if err != nil {
		t.Fatal(err)
	}
	c := l.cfg
	if c.live.limits.Sessions != 10 || c.live.limits.Streams != 20 || c.live.fanout != 30 || c.open || len(c.listen) != 1 || c.listen[0].String() != "/ip4/127.0.0.1/tcp/3" {
		t.Errorf("got %+v, open %v, listen %v", c.live, c.open, c.listen)
	}
	if !c.given.http || c.given.admin {
		t.Errorf("asked for by name: %+v; the address in the file is, and the default one is not", c.given)
	}
	for name, where := range map[string]string{
		"session-limit": path + ":1", "stream-limit": "WEIR_STREAM_LIMIT", "fanout": "--fanout", "insecure-open": "--insecure-open",
		"listen": "WEIR_LISTEN", "linger": "", "config": "WEIR_CONFIG",
	} {
		i := slices.IndexFunc(l.Settings, func(s api.Setting) bool { return s.Name == name })
		if got := l.Settings[i].Where; got != where {
			t.Errorf("%s comes from %q, want %q", name, got, where)
		}
	}
	t.Setenv("WEIR_LISTEN", "")
	cmdline.UnsetEmpty()
	if l, err = (Sources{}).Load(); err != nil || len(l.cfg.listen) != 2 {
		t.Errorf("a list in the file: %v, %v", l.cfg.listen, err)
	}
}

// Every flag can be set in a file, has a variable, and is refused by its place
// in the file if it has the wrong type.
func TestEveryFlagInAFile(t *testing.T) {
	for _, f := range Command().Flags {
		name := f.Names()[0]
		if len(f.(cli.DocGenerationFlag).GetEnvVars()) != 1 {
			t.Errorf("--%s has no variable", name)
		}
		if name == config.FlagName {
			continue
		}
		_, err := Sources{File: "weir.yaml", Text: []byte("\n" + name + ": {a: b}\n")}.Load()
		if err == nil || !strings.Contains(err.Error(), "weir.yaml:2:") || !strings.Contains(err.Error(), name+" wants ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range LiveSettings {
		if cmdline.FlagNamed(Command().Flags, name) == nil {
			t.Errorf("%s is no flag", name)
		}
	}
}
