package config

import (
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
)

var usageName = regexp.MustCompile("`([^`]*)`")

// Example is a file with every setting of flags, commented out, and its default.
// Those in live change when the file is read again.
func Example(flags []cli.Flag, live []string) string {
	var b strings.Builder
	b.WriteString(`# Configuration of weir node: weir node --config weir.yaml
#
# Every setting has the name of a flag. Flags are stronger than the environment
# (WEIR_…), and that is stronger than this file. What stands here, commented out, is
# the default. A setting that is marked [live] changes when the file is read again:
# by systemctl reload, kill -HUP or weir reload. The others need a restart.
#
#   weir config check weir.yaml   points at every mistake
#   weir config show              the settings in effect, and where each comes from
#
# Times have a unit (500ms, 10s, 1m30s), rates too (800mbps, 1.5gbps). Secrets do not
# belong here: name files that hold them.
`)
	for _, f := range flags {
		doc, ok := f.(cli.DocGenerationFlag)
		name := f.Names()[0]
		if v, visible := f.(cli.VisibleFlag); !ok || visible && !v.IsVisible() || name == FlagName {
			continue
		}
		mark := ""
		if slices.Contains(live, name) {
			mark = " [live]"
		}
		b.WriteString("\n")
		usage := usageName.ReplaceAllString(doc.GetUsage(), "$1")
		for _, line := range wrapped(usage+mark, 84) {
			b.WriteString("# " + line + "\n")
		}
		b.WriteString("#" + exampleValue(f, doc, name) + "\n")
	}
	return b.String()
}

// exampleValue returns a setting's line, with its default if that is the same
// on every machine.
func exampleValue(f cli.Flag, doc cli.DocGenerationFlag, name string) string {
	value := strings.Trim(doc.GetValue(), `"`)
	if _, ok := f.(*cli.BoolFlag); ok {
		return name + ": false"
	}
	if name == "data-dir" {
		return name + ":   # weir in $XDG_DATA_HOME, or .local/share/weir in the home directory"
	}
	if s, ok := f.(cli.DocGenerationSliceFlag); ok && s.IsSliceFlag() && value == "" {
		return name + ": []" + defaultNote(doc)
	}
	if zero := value == "0" || value == "0s"; value == "" || zero && strings.TrimSpace(cmdline.DocumentedDefault(doc)) != "" {
		return name + ":" + defaultNote(doc)
	}
	if strings.ContainsAny(value, ":#@`") || value == "off" {
		value = `"` + value + `"`
	}
	return name + ": " + value
}

func defaultNote(doc cli.DocGenerationFlag) string {
	text := cmdline.DocumentedDefault(doc)
	if text == "" {
		return ""
	}
	return "   # " + text
}

// wrapped breaks text into lines of at most width characters.
func wrapped(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
