package cmdline

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// completeCommand is the command that the shells' scripts call, with the words
// before the cursor and the one under it.
const completeCommand = "__complete"

// A Completion is one possible word at the cursor.
type Completion struct{ Word, doc string }

// valuesOf are the values of flags that take one of a few words.
var valuesOf = map[string][]string{
	"overflow":   {"redirect", "relay", "refuse"},
	"log-level":  {"debug", "info", "warn", "error"},
	"log-format": {"text", "json"},
	"discovery":  {"kademlia", "broker", "pull", "push"},
	"purpose":    {"view", "publish", "cascade"},
	"signal":     {"KILL", "TERM", "INT", "STOP", "CONT", "QUIT", "HUP", "USR1", "USR2"},
}

// Complete returns the possible replacements of the last of words, which follow
// the program's name. An empty result stands for a file, or for a value that
// cannot be known.
func Complete(words []string, known []*cli.Command) []Completion {
	if len(words) == 0 {
		words = []string{""}
	}
	before, last := words[:len(words)-1], words[len(words)-1]
	var command *cli.Command
	flags := []cli.Flag{&cli.BoolFlag{Name: "version", Usage: "print the version"}}
	arguments := 0
	for i := 0; i < len(before); i++ {
		word := before[i]
		if word == "--" {
			return nil
		}
		if len(word) > 1 && word[0] == '-' {
			f := FlagNamed(flags, word)
			if takesValue(f) && !strings.Contains(word, "=") {
				if i == len(before)-1 {
					return matching(completionsOf(f), last)
				}
				i++
			}
			continue
		}
		j := slices.IndexFunc(known, func(c *cli.Command) bool { return c.HasName(word) })
		if j < 0 {
			arguments++
			continue
		}
		command = known[j]
		known, flags = command.Subcommands, command.Flags
	}
	if strings.HasPrefix(last, "-") {
		if name, value, ok := strings.Cut(last, "="); ok {
			var list []Completion
			for _, c := range matching(completionsOf(FlagNamed(flags, name)), value) {
				list = append(list, Completion{name + "=" + c.Word, c.doc})
			}
			return list
		}
		return matching(flagCompletions(flags), last)
	}
	var list []Completion
	if arguments == 0 {
		for _, c := range known {
			if !c.Hidden {
				list = append(list, Completion{c.Name, c.Usage})
			}
		}
	}
	return matching(list, last)
}

func matching(list []Completion, prefix string) []Completion {
	return slices.DeleteFunc(list, func(c Completion) bool { return !strings.HasPrefix(c.Word, prefix) })
}

// FlagNamed returns the flag that word names, with or without dashes and a value,
// or nil.
func FlagNamed(flags []cli.Flag, word string) cli.Flag {
	name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func takesValue(f cli.Flag) bool {
	if f == nil {
		return false
	}
	_, isBool := f.(*cli.BoolFlag)
	return !isBool
}

func completionsOf(f cli.Flag) []Completion {
	if f == nil {
		return nil
	}
	var list []Completion
	for _, v := range valuesOf[f.Names()[0]] {
		list = append(list, Completion{v, ""})
	}
	return list
}

func flagCompletions(flags []cli.Flag) []Completion {
	list := []Completion{{"--help", "show help"}}
	for _, f := range flags {
		doc := ""
		if d, ok := f.(cli.DocGenerationFlag); ok {
			doc = strings.ReplaceAll(d.GetUsage(), "`", "")
		}
		if v, ok := f.(cli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		for _, name := range f.Names() {
			list = append(list, Completion{dashed(name), doc})
		}
	}
	slices.SortFunc(list, func(a, b Completion) int { return strings.Compare(a.Word, b.Word) })
	return list
}

// printCompletions answers a shell's script: one word per line, followed by a
// tab and its description.
func printCompletions(words []string, known []*cli.Command) {
	for _, c := range Complete(words, known) {
		fmt.Fprintf(os.Stdout, "%s\t%s\n", c.Word, c.doc)
	}
}

// scripts are the completion scripts by shell; they call the program, NAME.
// Names of their functions end in FUNC.
var scripts = map[string]string{
	"bash": `# bash completion for NAME. To use it now:      source <(NAME completion bash)
# and for good:                                  NAME completion bash > ~/.local/share/bash-completion/completions/NAME
_FUNC() {
    local word words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    # bash makes words of their own of = and :
    local line="${COMP_LINE:0:COMP_POINT}" list=()
    read -ra list <<< "$line"
    [[ "$line" == *[[:space:]] ]] && list+=("")
    words=("${list[@]:1}")
    local current="${words[-1]}" cut=""
    if [[ "$current" == *[=:]* ]]; then cut="${current%"${COMP_WORDS[COMP_CWORD]}"}"; fi
    if [[ "${COMP_WORDS[COMP_CWORD]}" == "=" ]]; then cut="$current"; fi
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        [[ -n "$word" ]] && COMPREPLY+=("${word#"$cut"}")
    done < <("${COMP_WORDS[0]}" ` + completeCommand + ` "${words[@]}" 2>/dev/null)
}
complete -o default -F _FUNC NAME
`,
	"zsh": `#compdef NAME
# zsh completion for NAME. To use it now:        source <(NAME completion zsh)
# and for good:                                  NAME completion zsh > "${fpath[1]}/_NAME"
_FUNC() {
    local -a described
    local word doc
    while IFS=$'\t' read -r word doc; do
        [[ -n "$word" ]] && described+=("${word//:/\\:}:$doc")
    done < <("${words[1]}" ` + completeCommand + ` "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#described} )); then
        _describe 'NAME' described
    else
        _files
    fi
}
if [[ "${funcstack[1]}" = "_FUNC" ]]; then
    _FUNC "$@"
else
    compdef _FUNC NAME
fi
`,
	"fish": `# fish completion for NAME. To use it now:       NAME completion fish | source
# and for good:                                  NAME completion fish > ~/.config/fish/completions/NAME.fish
function __FUNC_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] ` + completeCommand + ` $words[2..-1] 2>/dev/null
end
complete -c NAME -f -n 'test -n "$(__FUNC_complete)"' -a '(__FUNC_complete)'
`,
}

// CompletionCommand is the command that prints the scripts.
func CompletionCommand(program string) *cli.Command {
	c := &cli.Command{
		Name: "completion", Usage: "the script that completes " + program + "'s commands and flags in a shell: bash, zsh, fish",
		Description: "For example in bash:\n\n  source <(" + program + " completion bash)",
	}
	words := strings.NewReplacer("NAME", program, "FUNC", strings.ReplaceAll(program, "-", "_"))
	for _, shell := range []string{"bash", "zsh", "fish"} {
		c.Subcommands = append(c.Subcommands, &cli.Command{
			Name: shell, Usage: "for " + shell,
			Action: func(c *cli.Context) error {
				if err := NoArguments(c); err != nil {
					return err
				}
				_, err := words.WriteString(c.App.Writer, scripts[shell])
				return err
			},
		})
	}
	return c
}
