package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
)

func TestWhatWasMeant(t *testing.T) {
	for args, want := range map[string]string{
		"nod":                  `no command "nod" (did you mean node?); see weir --help`,
		"stauts":               "did you mean status?",
		"rec":                  "did you mean records?",
		"records lst":          `no command "records lst" (did you mean list?); see weir records --help`,
		"sessions stop":        `no command "sessions stop"; see weir sessions --help`,
		"frobnicate":           `no command "frobnicate"; see weir --help`,
		"node --overflwo":      "not defined: -overflwo (did you mean --overflow?)",
		"node --data-dri=/tmp": "not defined: -data-dri (did you mean --data-dir?)",
		"status -x":            "not defined: -x",
		"--verison":            "not defined: -verison (did you mean --version?)",
	} {
		err := cmdline.Run(t.Context(), app(), append([]string{"weir"}, strings.Fields(args)...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("weir %s: %v, want %s", args, err, want)
		}
		if coder, ok := err.(cli.ExitCoder); !ok || coder.ExitCode() != cmdline.ExitInput {
			t.Errorf("weir %s: %v is no wrong input", args, err)
		}
	}
	for _, args := range [][]string{{"weir"}, {"weir", "help"}, {"weir", "view", "http://x/"}, {"weir", "records", "get", "PEER"}, {"weir", "sessions"}, {"weir", "testnet", "up", "--", "--x"}} {
		if err := cmdline.UnknownCommand(args, commands()); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestCompletion(t *testing.T) {
	for _, c := range []struct {
		line string
		want []string
		not  []string
	}{
		{"", []string{"node", "status", "completion"}, []string{"retire"}},
		{"st", []string{"status", "streams"}, []string{"node"}},
		{"records ", []string{"list", "get", "watch", "verify"}, []string{"status"}},
		{"node --l", []string{"--listen", "--linger", "--log-level"}, []string{"--help"}},
		{"node --", []string{"--help", "--name", "--dev"}, nil},
		{"node --overflow re", []string{"redirect", "relay", "refuse"}, nil},
		{"node --overflow=re", []string{"--overflow=redirect"}, nil},
		{"node --name x --log-format ", []string{"text", "json"}, nil},
		{"--", []string{"--help", "--version"}, []string{"--dev"}},
		{"completion ", []string{"bash", "zsh", "fish"}, nil},
		{"sessions end --a", []string{"--admin"}, nil},
	} {
		var got []string
		for _, k := range cmdline.Complete(strings.Split(c.line, " "), commands()) {
			got = append(got, k.Word)
		}
		for _, w := range c.want {
			if !slices.Contains(got, w) {
				t.Errorf("weir %s: %v, want %s", c.line, got, w)
			}
		}
		for _, w := range c.not {
			if slices.Contains(got, w) {
				t.Errorf("weir %s: %s is offered", c.line, w)
			}
		}
	}
	for _, line := range []string{"node --policy ", "testnet up -- --l", "nonsense --l=", "--", "- - -", "view http://x "} {
		cmdline.Complete(strings.Split(line, " "), commands()) // none may panic
	}
}

// The scripts are run by their shells, if those are installed.
func TestCompletionScriptsInShells(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary")
	}
	dir := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "weir"), ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// A library that queries the terminal for its colours would do so in every
	// command, and leave the answer to the shell.
	t.Run("a terminal is asked nothing", func(t *testing.T) {
		script, err := exec.LookPath("script")
		if err != nil {
			t.Skip("script is not installed")
		}
		cmd := exec.Command(script, "-qec", filepath.Join(dir, "weir")+" version", "/dev/null")
		cmd.Env = append(os.Environ(), "TERM=xterm-256color", "CI=")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), "weir ") {
			t.Errorf("weir version on a terminal: %v: %q", err, out)
		}
	})
	for shell, c := range map[string]struct {
		script string
		says   []string
	}{
		"bash": {`source <(weir completion bash)
for line in "weir no" "weir node --lin" "weir records " "weir node --overflow=ref" "weir nope"; do
	COMP_LINE="$line"; COMP_POINT=${#line}; COMP_WORDS=(${line//=/ = }); [[ "$line" == *" " ]] && COMP_WORDS+=("")
	COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _weir; echo "$line: ${COMPREPLY[*]}."
done`, []string{"weir no: node.", "weir node --lin: --linger.", "weir records : list get watch verify.", "weir node --overflow=ref: refuse.", "weir nope: ."}},
		"zsh": {`autoload -U compinit; compinit -u -D; source <(weir completion zsh)
(( ${+_comps[weir]} )) && echo registered
_describe() { print -l -- "${(@)described}" }
words=(weir records wa); CURRENT=3; _weir
words=(weir node --lin); CURRENT=3; _weir`, []string{"registered", "watch:records as they come", "--linger:"}},
		"fish": {`weir completion fish | source
complete -C "weir records wa"
complete -C "weir node --lin"`, []string{"watch\t", "--linger\t"}},
	} {
		t.Run(shell, func(t *testing.T) {
			at, err := exec.LookPath(shell)
			if err != nil {
				t.Skip(shell, " is not installed")
			}
			args := map[string][]string{"bash": {"--norc", "-c"}, "zsh": {"-f", "-c"}, "fish": {"--no-config", "-c"}}[shell]
			cmd := exec.Command(at, append(args, c.script)...)
			cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOME="+dir, "ZDOTDIR="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			for _, want := range c.says {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s says\n%s\nwithout %q", shell, out, want)
				}
			}
		})
	}
}
