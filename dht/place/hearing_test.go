package place

import (
	"errors"
	"fmt"
	"testing"

	"weir/dht/holder"
)

func TestHearing(t *testing.T) {
	late := Silence{Node: "b", Err: "no answer when it was due"}
	for _, c := range []struct {
		name   string
		h      Hearing
		enough bool
		words  string
	}{
		{"nobody is known", Hear(0, 0, 0, nil), false, "no holder is known"},
		{"everybody has answered", Hear(8, 8, 5, nil), true, ""},
		{"most have", Hear(8, 7, 5, []Silence{late}), true, "1 of 8 holders did not answer (no answer when it was due)"},
		{"too few have", Hear(8, 1, 5, []Silence{late}), false, "1 of 8 holders did not answer (no answer when it was due)"},
		{"too few were asked", Hear(8, 1, 5, nil), false, "only 1 of 8 holders were heard"},
		{"the only one has not", Hear(1, 0, 1, []Silence{{Node: "a"}}), false, "the only holder did not answer"},
		{"those abandoned were not silent, if the others suffice", Hear(8, 2, 2, []Silence{{Node: "a", Err: Abandoned}, late}), true, "1 of 8 holders did not answer (no answer when it was due)"},
		{"and were, if they do not", Hear(3, 1, 2, []Silence{{Node: "a", Err: Abandoned}, late}), false, "2 of 3 holders did not answer (abandoned)"},
		{"each is silent once", Hear(3, 1, 1, []Silence{late, late}), true, "1 of 3 holders did not answer (no answer when it was due)"},
		{"two questions", Hear(8, 8, 5, nil).And(Hear(3, 1, 2, []Silence{late})), false, "1 of 11 holders did not answer (no answer when it was due)"},
	} {
		if c.h.Enough() != c.enough || c.h.String() != c.words {
			t.Errorf("%s: enough %v, %q; want %v, %q", c.name, c.h.Enough(), c.h.String(), c.enough, c.words)
		}
	}
	for _, u := range []*Unanswered{{Topic: holder.StreamTopic("show"), Hearing: Hear(8, 0, 5, []Silence{late})}, {Hearing: Hear(8, 0, 5, nil), Rival: "x"}} {
		if err := fmt.Errorf("find: %w", u); !errors.Is(err, ErrUnanswered) {
			t.Errorf("%v is not what it is", err)
		}
	}
}
