package holder

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

func TestReportsTakeMoreThanTwo(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	tell := func(d *Reports, from, count int, trust float64) {
		for i := range count {
			d.Heard(now, peer.ID(fmt.Sprint("seeker ", from+i)), []Report{{"node", trust}})
		}
	}
	for _, c := range []struct {
		name  string
		among int // seekers without a report
		said  map[float64]int
		want  float64
	}{
		{"nobody says anything", 10, nil, 1},
		{"one says the worst", 10, map[float64]int{0: 1}, 1},
		{"two do", 10, map[float64]int{0: 2}, 1},
		{"three agree", 10, map[float64]int{0.25: 3}, 0.25},
		{"one of four exaggerates", 10, map[float64]int{0: 1, 0.5: 3}, 0.5},
		{"three of very many who ask", 200, map[float64]int{0: 3}, 1},
		{"many of very many", 200, map[float64]int{0.25: 16}, 0.25},
	} {
		d := NewReports()
		for i := range c.among {
			d.Heard(now, peer.ID(fmt.Sprint("silent ", i)), nil)
		}
		from := 0
		for trust, count := range c.said {
			tell(d, from, count, trust)
			from += count
		}
		if got := d.Of(now, "node"); got != c.want {
			t.Errorf("%s: believed %v, want %v", c.name, got, c.want)
		}
	}
}

func TestReportsAreBoundedAndFade(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	d := NewReports()
	// The same reporter many times is one reporter, and a report about oneself
	// does not count.
	for range 100 {
		d.Heard(now, "a", []Report{{"node", 0}, {"a", 0}})
	}
	if got := d.Of(now, "node"); got != 1 || len(d.said) != 1 {
		t.Errorf("one reporter made a node believed %v", got)
	}
	for i := range maxReporters + 10 {
		d.Heard(now, peer.ID(fmt.Sprint(i)), []Report{{"node", 0}})
	}
	if n := len(d.said["node"]); n != maxReporters {
		t.Errorf("%d reporters are kept, want %d", n, maxReporters)
	}
	if got := d.Of(now, "node"); got != 0 {
		t.Errorf("believed %v, want 0", got)
	}
	if got := d.Of(now.Add(shortHalfLife), "node"); got != 0.5 {
		t.Errorf("after a half-life %v, want 0.5", got)
	}
	if got := d.Of(now.Add(10*shortHalfLife), "node"); got != 1 {
		t.Errorf("long after %v, want 1", got)
	}
	for i := range maxReported + 10 {
		d.Heard(now, "b", []Report{{peer.ID(fmt.Sprint("other ", i)), 0}})
	}
	if len(d.said) > maxReported {
		t.Errorf("reports of %d nodes", len(d.said))
	}
}

// A seeker's experience with a node that claims ten times its capacity, and is
// full.
func TestShortfallsShowWhatThereIs(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	b := NewReputation()
	b.FellShort(now, "liar", ClaimAccuracy(0.12, 0.83))
	if got := b.Of(now, "liar"); got < 0.09 || got > 0.11 {
		t.Errorf("believed %v, want about a tenth", got)
	}
	b.Refused(now, "refuser")
	b.FellShort(now, "fine", 0.95)
	list := b.Reports(now)
	if len(list) != 1 || list[0].Node != "liar" {
		t.Errorf("tells of %v, want the liar", list)
	}
	for i := range 20 {
		b.FellShort(now, peer.ID(fmt.Sprint(i)), 0.5)
	}
	if list := b.Reports(now); len(list) != MaxReports || list[0].Node != "liar" {
		t.Errorf("tells of %v, want %d, the worst first", list, MaxReports)
	}
}

// In a topic where as many sessions end as begin, nodes with old records do not
// look fuller than nodes with new ones.
func TestDrift(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	d := &drift{}
	r := rec("a", 1, time.Minute)
	r.Sessions = capacity.Usage{Used: 100, Limit: 200}
	for range 2_000 {
		// Two were placed and two left within ten seconds.
		d.learn(&Held{Record: r, Received: now, shadow: shadow{sessions: 2}}, now.Add(10*time.Second), &r)
	}
	if got := d.rate(); got < 0.0019 || got > 0.0021 {
		t.Errorf("%v leave per second, want 0.002", got)
	}
	if got := left(d.rate(), 10*time.Second); got < 0.979 || got > 0.981 {
		t.Errorf("%v are left, want 0.98", got)
	}
	// If more sessions began than were offered, the rate of ending is 0.
	d = &drift{}
	more := r
	more.Sessions.Used = 150
	d.learn(&Held{Record: r, Received: now}, now.Add(10*time.Second), &more)
	if got := d.rate(); got != 0 {
		t.Errorf("%v leave per second, want 0", got)
	}
}
