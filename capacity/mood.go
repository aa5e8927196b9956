package capacity

import "fmt"

// Mood is what a policy aims at beyond the single choice.
type Mood uint8

// The moods.
const (
	Spread Mood = iota // load is even: holders offer a random sample, by score
	Pack               // few nodes are in use: holders offer the best, and idle nodes may be released
)

// String is "spread" or "pack"; so it is in JSON and YAML.
func (m Mood) String() string {
	switch m {
	case Spread:
		return "spread"
	case Pack:
		return "pack"
	}
	return fmt.Sprintf("%d", uint8(m))
}

// MarshalText fails on a mood that has no name.
func (m Mood) MarshalText() ([]byte, error) {
	if m > Pack {
		return nil, fmt.Errorf("mood %d: want spread or pack", uint8(m))
	}
	return []byte(m.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (m *Mood) UnmarshalText(b []byte) error {
	for _, known := range []Mood{Spread, Pack} {
		if string(b) == known.String() {
			*m = known
			return nil
		}
	}
	return fmt.Errorf("mood %q: want spread or pack", b)
}
