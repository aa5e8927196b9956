package signed

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/capacity"
	"weir/capacity/capacitytest"
)

func TestSignedPolicy(t *testing.T) {
	key, stranger, operator := capacitytest.Key(t, "operator"), capacitytest.Key(t, "stranger"), capacitytest.ID(t, "operator")
	text := []byte("name: x\nversion: 3\nfilter:\n  - {name: room, expr: r.sessions_free >= 1}\n")
	issued := time.UnixMilli(1_700_000_000_123).UTC()
	sealed, err := SealPolicy("p", text, 7, issued, key)
	if err != nil {
		t.Fatal(err)
	}
	p, err := OpenPolicy(sealed, operator)
	if err != nil {
		t.Fatal(err)
	}
	if p.Version != 7 || p.Compiled.Policy().Version != 7 || !p.Issued.Equal(issued) || string(p.Text) != string(text) || p.Operator != operator || p.Compiled.Policy().Name != "x" || len(p.Sum()) != 12 {
		t.Errorf("got %+v", p)
	}
	tampered := slices.Clone(sealed)
	tampered[len(tampered)/2] ^= 1
	foreign, err := SealPolicy("p", text, 7, issued, stranger)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		sealed []byte
		want   error
	}{
		"a stranger's":     {foreign, capacity.ErrForged},
		"too large":        {make([]byte, MaxPolicySize+1), capacity.ErrTooLarge},
		"nothing":          {nil, capacity.ErrMalformed},
		"cut off":          {sealed[:len(sealed)-1], capacity.ErrMalformed},
		"a record, signed": {mustSeal(t, capacitytest.Record(t, "operator"), key), capacity.ErrForged},
	} {
		if _, err := OpenPolicy(c.sealed, operator); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := OpenPolicy(tampered, operator); err == nil {
		t.Error("a tampered one is taken")
	}
	if _, err := SealPolicy("p", []byte("filter: 3\n"), 1, issued, key); err == nil || !strings.Contains(err.Error(), "p:1:9: want a list") {
		t.Errorf("a broken text is signed: %v", err)
	}
	if _, err := SealPolicy("p", text, 0, issued, key); !errors.Is(err, capacity.ErrMalformed) {
		t.Errorf("version 0 is signed: %v", err)
	}
}
