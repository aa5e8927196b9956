package policy

import "fmt"

// Strategy is a policy's aim beyond the single choice.
type Strategy uint8

// The strategies.
const (
	Spread  Strategy = iota // load is even: holders offer a random sample, by score
	BinPack                 // few nodes are in use: holders offer the best, and idle nodes may be released
)

// String is "spread" or "binpack", as in JSON and YAML.
func (s Strategy) String() string {
	switch s {
	case Spread:
		return "spread"
	case BinPack:
		return "binpack"
	}
	return fmt.Sprintf("%d", uint8(s))
}

// MarshalText fails on a strategy that has no name.
func (s Strategy) MarshalText() ([]byte, error) {
	if s > BinPack {
		return nil, fmt.Errorf("strategy %d: want spread or binpack", uint8(s))
	}
	return []byte(s.String()), nil
}

// UnmarshalText decodes the output of MarshalText.
func (s *Strategy) UnmarshalText(b []byte) error {
	for _, known := range []Strategy{Spread, BinPack} {
		if string(b) == known.String() {
			*s = known
			return nil
		}
	}
	return fmt.Errorf("strategy %q: want spread or binpack", b)
}
