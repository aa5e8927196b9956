package tree

import (
	"testing"
	"time"
)

func TestPulse(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	var p pulse
	is := func(ms int, count uint64, age int) {
		t.Helper()
		if b := p.newest(at(ms)); b.Count != count || b.Age != time.Duration(age)*time.Millisecond {
			t.Errorf("at %d ms beat %d of age %v, want %d of %d ms", ms, b.Count, b.Age, count, age)
		}
	}
	p.begin(at(0))
	is(0, 0, 0)
	is(1050, 5, 50)
	p.begin(at(1050)) // it counts already
	is(1200, 6, 0)
	p.stop(at(1250))
	is(3250, 6, 2000)
	p.stop(at(4000))
	is(5250, 6, 4000)

	p.follow(Beat{3, 100 * time.Millisecond}, at(6000)) // another path: a lower count
	is(6000, 3, 100)
	p.follow(Beat{4, 5 * time.Second}, at(6100)) // that took longer than the one before
	is(6100, 4, 200)
	p.follow(Beat{5, -time.Hour}, at(6200)) // of the future
	is(6200, 5, 0)

	p.begin(at(7000)) // it has become the origin
	is(7400, 7, 0)
	p.follow(Beat{1, time.Second}, at(8000)) // it has not been for a second
	is(8000, 1, 1000)
}
