package policy

import "fmt"

// Strategy is what a policy aims at beyond the single choice.
type Strategy uint8

// The moods.
const (
	Spread  Strategy = iota // load is even: holders offer a random sample, by score
	BinPack                 // few nodes are in use: holders offer the best, and idle nodes may be released
)

// String is "spread" or "pack"; so it is in JSON and YAML.
func (m Strategy) String() string {
	switch m {
	case Spread:
		return "spread"
	case BinPack:
		return "pack"
	}
	return fmt.Sprintf("%d", uint8(m))
}

// MarshalText fails on a mood that has no name.
func (m Strategy) MarshalText() ([]byte, error) {
	if m > BinPack {
		return nil, fmt.Errorf("mood %d: want spread or pack", uint8(m))
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (m *Strategy) UnmarshalText(b []byte) error {
	for _, known := range []Strategy{Spread, BinPack} {
		if string(b) == known.String() {
			*m = known
			return nil
		}
	}
	return fmt.Errorf("mood %q: want spread or pack", b)
}
