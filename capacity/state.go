package capacity

import (
	"fmt"
	"slices"
	"strings"
)

var (
	stateNames   = [...]string{Active: "active", Draining: "draining", Full: "full"}
	streamStates = [...]string{Live: "live", Waiting: "waiting", Orphan: "orphan"}
	purposeNames = [...]string{View: "view", Publish: "publish", Cascade: "cascade"}
)

// StateNames are the names of all states, in their order.
func StateNames() []string { return slices.Clone(stateNames[:]) }

// PurposeNames are the names of all purposes, in their order.
func PurposeNames() []string { return slices.Clone(purposeNames[:]) }

// String is "active", "draining" or "full", as in JSON.
func (s State) String() string { return nameOf(stateNames[:], s) }

// MarshalText fails on a state that has no name.
func (s State) MarshalText() ([]byte, error) { return marshalName(stateNames[:], s) }

// UnmarshalText decodes the output of MarshalText.
func (s *State) UnmarshalText(b []byte) (err error) {
	*s, err = parseName[State]("state", stateNames[:], string(b))
	return err
}

// String is "live", "waiting" or "orphan", as in JSON.
func (s StreamState) String() string { return nameOf(streamStates[:], s) }

// MarshalText fails on a state that has no name.
func (s StreamState) MarshalText() ([]byte, error) { return marshalName(streamStates[:], s) }

// UnmarshalText decodes the output of MarshalText.
func (s *StreamState) UnmarshalText(b []byte) (err error) {
	*s, err = parseName[StreamState]("state of a stream", streamStates[:], string(b))
	return err
}

// String is "view", "publish" or "cascade", as in JSON.
func (p Purpose) String() string { return nameOf(purposeNames[:], p) }

// MarshalText fails on a purpose that has no name.
func (p Purpose) MarshalText() ([]byte, error) { return marshalName(purposeNames[:], p) }

// UnmarshalText decodes the output of MarshalText.
func (p *Purpose) UnmarshalText(b []byte) (err error) {
	*p, err = ParsePurpose(string(b))
	return err
}

// ParsePurpose decodes the output of [Purpose.String].
func ParsePurpose(s string) (Purpose, error) {
	return parseName[Purpose]("purpose", purposeNames[:], s)
}

func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%d", uint8(v))
}

func marshalName[T ~uint8](names []string, v T) ([]byte, error) {
	if int(v) < len(names) {
		return []byte(names[v]), nil
	}
	return nil, fmt.Errorf("%d has no name; known are %s", uint8(v), strings.Join(names, ", "))
}

func parseName[T ~uint8](what string, names []string, s string) (T, error) {
	for i, n := range names {
		if n == s {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("%s %q is none of %s", what, s, strings.Join(names, ", "))
}
