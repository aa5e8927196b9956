package sdp

import (
	"errors"
	"slices"
	"strings"
)

// A Fragment is the body of a WHIP or WHEP PATCH (RFC 8840, section 9): further
// candidates, or new ICE credentials, which request a restart.
type Fragment struct {
	Ufrag, Pwd string
	Candidates []Candidate
	Skipped    map[string]int
}

func ParseFragment(body []byte) (*Fragment, error) {
	if len(body) > MaxBytes {
		return nil, bad("longer than %d bytes", MaxBytes)
	}
	f := &Fragment{Skipped: map[string]int{}}
	found := false
	for _, line := range lines(body) {
		if len(line) < 2 || line[1] != '=' {
			return nil, Error("not an SDP fragment")
		}
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(key) {
		case "a=ice-ufrag", "a=ice-pwd":
			if !isToken(value) || len(value) > maxToken {
				return nil, bad("%s:%s", key, clip(value))
			}
			if strings.EqualFold(key, "a=ice-ufrag") {
				f.Ufrag = value
			} else {
				f.Pwd = value
			}
		case "a=candidate":
			found = true
			c, why := parseCandidate(value)
			switch {
			case why != "":
				f.Skipped[why]++
			case slices.Contains(f.Candidates, c):
			case len(f.Candidates) == MaxCandidates:
				f.Skipped[TooMany]++
			default:
				f.Candidates = append(f.Candidates, c)
			}
		case "a=end-of-candidates":
			found = true
		}
	}
	if f.Ufrag == "" && !found {
		return nil, errors.New("bad SDP: the fragment has neither candidates nor a=ice-ufrag")
	}
	return f, nil
}

// RestartFragment returns the answer to an ICE restart: the new credentials and
// the server's candidates, taken from the whole answer.
func RestartFragment(answer string) string {
	var b strings.Builder
	seen := map[string]bool{}
	for line := range strings.Lines(answer) {
		for _, p := range []string{"a=ice-lite", "a=ice-ufrag:", "a=ice-pwd:", "a=candidate:", "a=end-of-candidates"} {
			if strings.HasPrefix(line, p) && !seen[line] && !rtcpComponent(line) {
				seen[line] = true
				b.WriteString(line)
			}
		}
	}
	return b.String()
}
