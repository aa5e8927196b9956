package config

import (
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v4"

	"weir/cmd/weir/term"
)

// values reads the values of a setting.
func (r *Reader) values(name string, f cli.Flag, n *yaml.Node) (list []string, isList bool) {
	_, repeats := f.(cli.DocGenerationSliceFlag)
	if repeats {
		repeats = f.(cli.DocGenerationSliceFlag).IsSliceFlag()
	}
	if !r.plain(n) {
		return nil, false
	}
	switch {
	case n.Kind == yaml.MappingNode:
		r.at(n, "%s wants %s, not settings within it", name, wanted(f))
		return nil, false
	case n.Kind == yaml.SequenceNode && !repeats:
		r.at(n, "%s wants one value, not a list: %s", name, wanted(f))
		return nil, false
	case n.Kind != yaml.SequenceNode:
		if v, ok := r.scalar(name, f, n); ok {
			list = append(list, v)
		}
		return list, false
	}
	if len(n.Content) == 0 {
		r.at(n, "%s: the list is empty: give values, or take the line out", name)
	}
	if len(n.Content) > maxConfigList {
		r.at(n.Content[maxConfigList], "%s has %d values, at most %d", name, len(n.Content), maxConfigList)
		return nil, true
	}
	for _, item := range n.Content {
		if !r.plain(item) {
			continue
		}
		if item.Kind != yaml.ScalarNode {
			r.at(item, "%s wants a list of plain values", name)
			continue
		}
		if v, ok := r.scalar(name, f, item); ok {
			list = append(list, v)
		}
	}
	return list, true
}

// scalar reads one value and checks it against the flag's type.
func (r *Reader) scalar(name string, f cli.Flag, n *yaml.Node) (string, bool) {
	v := n.Value
	wrong := func() (string, bool) {
		r.at(n, "%s: %s is not %s", name, strconv.Quote(shortened(v, 40)), wanted(f))
		return "", false
	}
	if n.Tag == "!!null" {
		r.at(n, "%s has no value: give %s, or take the line out", name, wanted(f))
		return "", false
	}
	switch f.(type) {
	case *cli.BoolFlag:
		if v != "true" && v != "false" {
			return wrong()
		}
	case *cli.DurationFlag:
		if _, err := time.ParseDuration(v); err != nil {
			if _, plain := strconv.ParseFloat(v, 64); plain == nil {
				r.at(n, "%s: %s has no unit: write for example %ss, %sms or %sm", name, v, v, v, v)
				return "", false
			}
			return wrong()
		}
	case *cli.IntFlag, *cli.Int64Flag, *cli.UintFlag, *cli.Uint64Flag:
		if digits := strings.TrimLeft(v, "+-"); len(digits) > 1 && digits[0] == '0' && strings.Trim(digits, "0123456789") == "" {
			r.at(n, "%s: %s begins with 0 and would be read as octal: write it without", name, v)
			return "", false
		}
		if i, err := strconv.ParseInt(v, 0, 64); err != nil || i > math.MaxInt32 && strconv.IntSize == 32 {
			return wrong()
		}
	case *cli.Float64Flag:
		if x, err := strconv.ParseFloat(v, 64); err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return wrong()
		}
	default:
		if v == "" {
			r.at(n, "%s is empty: give %s, or take the line out", name, wanted(f))
			return "", false
		}
		if strings.ContainsAny(v, "\n\r") && !strings.HasSuffix(name, "-command") {
			r.at(n, "%s has several lines, and wants one: write it behind the colon", name)
			return "", false
		}
	}
	return v, true
}

// shortened cuts v off after most characters.
func shortened(v string, most int) string {
	if len(v) > most {
		if r := []rune(v); len(r) > most {
			return string(r[:most]) + "…"
		}
	}
	return v
}

// wanted describes the values that a flag takes.
func wanted(f cli.Flag) string {
	switch f.(type) {
	case *cli.BoolFlag:
		return "true or false"
	case *cli.DurationFlag:
		return "a time with its unit, such as 10s or 1m30s"
	case *cli.IntFlag, *cli.Int64Flag, *cli.UintFlag, *cli.Uint64Flag:
		return "a whole number"
	case *cli.Float64Flag:
		return "a number, such as 0.8"
	case *cli.StringSliceFlag:
		return "a text, or a list of texts"
	}
	return "a text"
}

var userInfo = regexp.MustCompile(`(://)[^/@\s"']*@`)

// MaskSecrets masks secrets in s: passwords in URLs, and the parameters that
// [term.WithoutSecrets] knows.
func MaskSecrets(s string) string {
	return term.WithoutSecrets(userInfo.ReplaceAllString(s, "${1}…@"))
}

// Shown is a setting's value without secrets, for people and programs. In a URL
// everything after the path is hidden, and in a command everything but the
// program: both are used to pass keys.
func Shown(name, value string) string {
	switch {
	case value == "":
		return ""
	case name == "join":
		return fmt.Sprintf("(a token of %s)", term.Count(len(value), "character", "characters"))
	case strings.HasSuffix(name, "-command"):
		program, rest, _ := strings.Cut(strings.TrimSpace(value), " ")
		if strings.ContainsAny(program, "=\n") {
			program, rest = "", value
		}
		if rest = strings.TrimSpace(rest); rest != "" {
			program = strings.TrimSpace(program + fmt.Sprintf(" (and %s)", term.Count(len(rest), "character", "characters")))
		}
		return program
	case strings.Contains(value, "://"):
		u, err := url.Parse(value)
		if err != nil {
			return "(hidden: it is no URL)"
		}
		if u.User != nil {
			u.User = url.User("…")
		}
		text := u.Scheme + "://"
		if u.User != nil {
			text += "…@"
		}
		text += u.Host + u.EscapedPath()
		if u.RawQuery != "" {
			text += "?…"
		}
		return text
	}
	return MaskSecrets(value)
}
