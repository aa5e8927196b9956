package client

import (
	"slices"
	"testing"
	"time"
)

func TestRepair(t *testing.T) {
	start := time.Unix(0, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	check := func(r *repair, ms int, want ...uint16) {
		t.Helper()
		if got := r.due(at(ms)); !slices.Equal(got, want) {
			t.Errorf("at %d ms asks for %v, want %v", ms, got, want)
		}
	}

	var r repair
	r.gap(65534, 4, at(0))
	check(&r, 4) // may have been overtaken
	r.came(65535)
	check(&r, 5, 65534, 0, 1)
	check(&r, 6) // their repairs are on the way
	r.came(0)
	check(&r, 55, 65534, 1)
	r.came(7) // not missed
	for i := 2; i < repairTries; i++ {
		check(&r, 5+50*i, 65534, 1)
	}
	check(&r, 5+50*repairTries)
	if len(r.missing) != 0 {
		t.Errorf("still missing after %d tries: %v", repairTries, r.missing)
	}

	r.gap(0, maxMissing, at(0))
	r.gap(1000, 1, at(0))
	if n := len(r.missing); n != maxMissing || r.missing[n-1].seq != 1000 || r.missing[0].seq != 1 {
		t.Errorf("%d missing, from %d on: the oldest were to go", n, r.missing[0].seq)
	}
	r.gap(2000, maxMissing+1, at(0))
	check(&r, 100) // too many to request
}
