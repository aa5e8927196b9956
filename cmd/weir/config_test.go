package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/config"
	"weir/cmd/weir/daemon"
)

// The example has every flag, and with all of it in force a node is as without it.
func TestExampleConfig(t *testing.T) {
	const path = "deploy/weir.yaml"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != config.Example(daemon.Command().Flags, daemon.LiveSettings) {
		t.Errorf("%s is not what weir config example prints: run make docs", path)
	}
	if l, err := (daemon.Sources{File: path}).Load(); err != nil || len(l.Entries) != 0 {
		t.Errorf("as it is: %d settings, %v", len(l.Entries), err)
	}
	var live []string
	for line := range strings.Lines(string(text)) {
		if bare, ok := strings.CutPrefix(line, "#"); ok && !strings.HasPrefix(bare, " ") && bare != "\n" {
			value, _, _ := strings.Cut(bare, "   # ")
			if _, v, _ := strings.Cut(strings.TrimSpace(value), ":"); v != "" && v != " []" {
				live = append(live, strings.TrimSpace(value))
			}
		}
	}
	l, err := daemon.Sources{File: "example", Text: []byte(strings.Join(live, "\n"))}.Load()
	if err != nil { // some are refused without the flag they belong to
		faults := daemon.FaultsOf("", err).Faults
		for _, f := range faults {
			if !strings.Contains(f.Message, ": give ") {
				t.Errorf("%+v", f)
			}
			live[f.Line-1] = "# " + live[f.Line-1]
		}
		if len(live)-len(faults) < 20 {
			t.Errorf("%d of %d refused: %v", len(faults), len(live), err)
		}
		if l, err = (daemon.Sources{File: "example", Text: []byte(strings.Join(live, "\n"))}).Load(); err != nil {
			t.Fatal(err)
		}
	}
	plain, err := daemon.Sources{}.Load()
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range l.Settings {
		if want := plain.Settings[i]; !slices.Equal(s.Raw, want.Raw) && s.Name != config.FlagName {
			t.Errorf("the example's %s is %q, the default %q", s.Name, s.Raw, want.Raw)
		}
	}
	for _, f := range daemon.Command().Flags {
		if name := f.Names()[0]; name != config.FlagName && !strings.Contains(string(text), "\n#"+name+":") {
			t.Errorf("the example lacks %s", name)
		}
	}
}

// The commands say what came of a reload, and where the file is wrong.
func TestReloadCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "weir.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	write("session-limit: 5\n")
	admin := strings.TrimPrefix(startNode(t, "--config", path).Admin, "http://")
	write("session-limit: 5\nlinger: 3\n")
	out, code, err := runWeir(t.Context(), "reload", "--admin", admin)
	if code != cmdline.ExitInput || !strings.Contains(err.Error(), "weir.yaml:2:") {
		t.Errorf("weir reload: %d, %s, %v", code, out, err)
	}
	out, _, err = runWeir(t.Context(), "config", "show", "--admin", admin)
	if err != nil || !strings.Contains(out, "refused: ") || !strings.Contains(out, "weir.yaml:1") {
		t.Errorf("weir config show: %v\n%s", err, out)
	}

	write("session-limit: 6\n")
	out, code, err = runWeir(t.Context(), "reload", "--admin", admin)
	if code != 0 || out != "changed: session-limit\n" {
		t.Errorf("weir reload: %d, %q, %v", code, out, err)
	}
}

// The check reports all mistakes, entries without effect, and a file that other
// users may write.
func TestConfigCommands(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.yaml", "session-limit: 5\nregion: eu\n", 0o644)
	bad := write("bad.yaml", "sesion-limit: 5\nlinger: 3\n", 0o644)
	idle := write("idle.yaml", "hook-timeout: 5s\nregion: eu\n", 0o664)
	open := write("open.yaml", "http: 0.0.0.0:0\npublic-url: http://192.0.2.1\n", 0o644)
	secret := write("secret.yaml", "provision-url: https://me:s3cret@example.org/\n", 0o644)
	t.Setenv("WEIR_REGION", "us")
	for _, c := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"config", "check", good}, 0, []string{"good.yaml: 2 settings, no mistake", "good.yaml:2:9: region has no effect: WEIR_REGION is stronger"}},
		{[]string{"config", "check", bad}, cmdline.ExitInput, []string{"bad.yaml:1:1: there is no setting", "did you mean session-limit?", "bad.yaml:2:9: linger: 3 has no unit"}},
		{[]string{"config", "check", "--json", bad}, cmdline.ExitInput, []string{`"line":1`, `"line":2`, `"warnings":[]`}},
		{[]string{"config", "check", idle}, 0, []string{"idle.yaml:1:15: hook-timeout has no effect without one of provision-command", "chmod go-w"}},
		{[]string{"config", "check", secret}, 0, []string{"secret.yaml:1:16: provision-url holds a secret"}},
		{[]string{"config", "check", open}, cmdline.ExitInput, []string{"open.yaml:1:7: http: 0.0.0.0:0 can be reached", "--insecure-open"}},
		{[]string{"config", "check", open, "--", "--insecure-open"}, 0, []string{"no mistake"}},
		{[]string{"config", "check", open, "--", "--insecure-opn"}, cmdline.ExitInput, []string{"did you mean --insecure-open?"}},
		{[]string{"config", "check", good, bad}, cmdline.ExitInput, []string{"want one FILE"}},
		{[]string{"config", "check"}, cmdline.ExitInput, []string{"wants one FILE"}},
		{[]string{"config", "check", filepath.Join(dir, "absent")}, cmdline.ExitInput, []string{"there is no such file"}},
		{[]string{"config", "show", good}, 0, []string{"session-limit", "good.yaml:1", "WEIR_REGION", "default"}},
		{[]string{"config", "show", "--json", good, "--", "--session-limit", "6"}, 0, []string{`"source":"flag"`, `"where":"--session-limit"`}},
		{[]string{"config", "show", secret}, 0, []string{"https://…@example.org/"}},
		{[]string{"config", "show", "--admin", "127.0.0.1:1"}, cmdline.ExitConnection, []string{"no node answers"}},
		{[]string{"reload", "--admin", "127.0.0.1:1"}, cmdline.ExitConnection, []string{"no node answers"}},
		{[]string{"node", "--config", bad, "--data-dir", dir}, cmdline.ExitInput, []string{"bad.yaml:1:1: there is no setting", "bad.yaml:2:9: linger"}},
		{[]string{"node", "--config", "", "--session-limit", "x"}, cmdline.ExitInput, []string{"session-limit"}},
	} {
		out, code, err := runWeir(t.Context(), c.args...)
		if err != nil {
			out += err.Error()
		}
		for _, want := range c.want {
			if code != c.code || !strings.Contains(out, want) {
				t.Errorf("weir %s: exit %d, %s\nwant %d and %q", strings.Join(c.args, " "), code, out, c.code, want)
			}
		}
		if strings.Contains(out, "s3cret") {
			t.Errorf("weir %s shows a secret: %s", strings.Join(c.args, " "), out)
		}
	}
}

// An old name of a flag is still accepted, with a warning.
func TestOldNamesAreTaken(t *testing.T) {
	flags := []cli.Flag{&cli.IntFlag{Name: "session-limit", Aliases: []string{"max-sessions"}}}
	entries, err := config.Parse("weir.yaml", []byte("max-sessions: 5\n"), flags)
	if err != nil || len(entries) != 1 || entries[0].Name != "session-limit" || entries[0].Alias != "max-sessions" {
		t.Fatalf("%+v, %v", entries, err)
	}
	l := daemon.Loaded{Entries: entries, Settings: []api.Setting{{Name: "session-limit", Source: api.FromFile}}}
	all := warnings(daemon.Sources{Text: []byte{}}, l)
	if len(all) != 1 || !strings.Contains(all[0].Message, "max-sessions is deprecated: its name is session-limit now") {
		t.Errorf("%+v", all)
	}
	if _, err := config.Parse("weir.yaml", []byte("max-sessions: 5\nsession-limit: 6\n"), flags); err == nil || !strings.Contains(err.Error(), "set already in line 1") {
		t.Errorf("both names: %v", err)
	}
}
