package rights

import (
	"fmt"
	"strings"

	"weir/capacity"
)

// maxPatterns bounds the stream patterns of one token.
const maxPatterns = 16

// ValidPattern returns why p is not a valid pattern. A pattern is a stream's
// name, or the beginning of names with one "*" behind it, which stands for the
// rest of the name, slashes included. "*" alone matches every stream.
func ValidPattern(p string) error {
	name, open := strings.CutSuffix(p, "*")
	switch {
	case strings.Contains(name, "*"):
		return fmt.Errorf("stream %.80q: one * may stand at the end, and nowhere else", p)
	case open && name == "":
		return nil
	case open:
		name += "x" // any rest
	}
	if err := capacity.ValidStreamName(name); err != nil {
		return fmt.Errorf("stream %.80q: %w", p, err)
	}
	return nil
}

// matches reports whether one of patterns, each valid, matches stream. It takes
// time proportional to their length.
func matches(patterns []string, stream string) bool {
	for _, p := range patterns {
		if name, open := strings.CutSuffix(p, "*"); stream == p || open && strings.HasPrefix(stream, name) && len(stream) > len(name) {
			return true
		}
	}
	return false
}
