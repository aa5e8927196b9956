package sim

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/capacity/policy"
)

func TestEventsRunInOrder(t *testing.T) {
	var e engine
	var got []int
	note := func(i int) func() { return func() { got = append(got, i) } }
	e.after(2*time.Second, note(3))
	e.after(time.Second, note(1))
	e.after(time.Second, note(2)) // events of one time run in the order scheduled
	e.after(5*time.Second, note(9))
	e.after(time.Second, func() { e.after(-time.Hour, note(0)) }) // a time in the past means now
	e.run(4 * time.Second)
	if want := []int{1, 2, 0, 3}; !slices.Equal(got, want) {
		t.Errorf("ran %v, want %v", got, want)
	}
	if e.now != 4*time.Second || len(e.heap) != 1 {
		t.Errorf("it is %v, and %d events are left", e.now, len(e.heap))
	}
	// Many events, in any order.
	e = engine{}
	got = nil
	for i := range 1_000 {
		at := i * 7919 % 1_000
		e.after(time.Duration(at), note(at))
	}
	e.run(time.Second)
	if !slices.IsSorted(got) || len(got) != 1_000 {
		t.Errorf("%d events ran, sorted: %v", len(got), slices.IsSorted(got))
	}
}

func simulate(t testing.TB, c Config) *Report {
	t.Helper()
	r, err := Run(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestBurst(t *testing.T) {
	r := simulate(t, Config{Scenarios: []string{"burst"}})
	for _, a := range r.Aims {
		if !a.Met {
			t.Errorf("%s: %s", a.Aim, a.Found)
		}
	}
	// The same seed gives the same result.
	if same := simulate(t, Config{Scenarios: []string{"burst"}}); encode(t, same.Rows) != encode(t, r.Rows) {
		t.Error("the same seed gives other figures")
	}
}

func encode(t testing.TB, rows []Row) string {
	t.Helper()
	b, err := json.Marshal(rows)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// At an eighth of the real size; the spread is compared in weir-lab sim.
func TestSteady(t *testing.T) {
	s := testStage()
	for i, c := range steadyCases(125)[:2] {
		c.warm, c.lasts = 15*time.Second, 30*time.Second
		w := s.runSteady(c, Weir)
		r := s.row(w, "steady", c.name, Weir, c.lasts.Seconds())
		t.Logf("%s: %+v", c.name, r)
		if r.Placed < 500 || r.FirstRefused > 0.01 || r.Blocked > 0.001 || r.Peak > 1.001 {
			t.Errorf("%s: %+v", c.name, r)
		}
		stale := s.row(s.runSteady(c, Central), "steady", c.name, Central, c.lasts.Seconds())
		if i == 0 && stale.FirstRefused < 0.2 {
			t.Errorf("%s: weir refuses %.3f of first tries, the least loaded by old records %.3f", c.name, r.FirstRefused, stale.FirstRefused)
		}
	}
}

func testStage() *stage {
	return &stage{Config: Config{Seed: 1, Progress: func(string, string) {}}, report: &Report{}}
}

func TestFlash(t *testing.T) {
	r := simulate(t, Config{Scenarios: []string{"flash"}})
	t.Logf("%+v", r.Aims)
	if !r.Met() {
		t.Errorf("%+v", r.Aims)
	}
	if row := r.Rows[0]; row.Placed != flashViewers || row.Carriers < flashNodes/2 {
		t.Errorf("%d viewers, %d carriers", row.Placed, row.Carriers)
	}
}

func TestLiarsGetTheirFairShare(t *testing.T) {
	s := testStage()
	_, _, shared := s.runLiars(Weir, true, 60)
	_, _, alone := s.runLiars(Central, false, 60)
	t.Logf("weir %.2f ×, the least loaded by records %.2f ×", shared, alone)
	if shared > 1.33 {
		t.Errorf("liars get %.2f × their fair share, want 1.33 at most", shared)
	}
	if alone < 3 {
		t.Errorf("liars get %.2f × their fair share by records alone: they do not lie", alone)
	}
}

func TestPackReleasesEmptyNodes(t *testing.T) {
	r := simulate(t, Config{Scenarios: []string{"pack"}, Nodes: 30})
	row := r.Rows[0]
	t.Logf("%+v", r.Aims)
	if row.Disturbed != 0 || row.Released == 0 || row.Blocked > 0 || row.InUse > 1.4 {
		t.Errorf("%+v", r.Aims)
	}
}

func TestNodesOfAWorldAreWhatTheyClaim(t *testing.T) {
	w := newWorld(plan{seed: 1, regions: 3, nodes: 300, liars: 30, kinds: []int{10, 20}, fresh: product, policy: policy.Default()})
	liars, homeless := 0, 0
	for _, n := range w.nodes {
		if n.record.Uplink.Limit == int64(10*n.sessions*viewerUplink) {
			liars++
		}
		if n.home == nil || len(n.home.holders) != 8 {
			homeless++
		}
	}
	if liars != 30 || homeless != 0 {
		t.Errorf("%d liars, %d without holders", liars, homeless)
	}
	for _, n := range w.nodes[:10] {
		if h := n.home.holders[0].table.Get(w.clock(), n.home.topic, n.id); h == nil {
			t.Errorf("node %d is not held", n.index)
		}
	}
}

func TestBadConfig(t *testing.T) {
	for name, c := range map[string]Config{
		"no such scenario": {Scenarios: []string{"burst", "storm"}},
		"too few nodes":    {Nodes: 9},
		"too many":         {Nodes: MaxNodes + 1},
		"negative":         {Nodes: -1},
	} {
		if _, err := Run(c); !errors.Is(err, ErrInput) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReportIsWritten(t *testing.T) {
	r := &Report{Rows: []Row{
		{Scenario: "steady", Case: "a", Who: Weir, Nodes: 10}, {Scenario: "steady", Case: "a", Who: Random, Nodes: 10},
		{Scenario: "scale", Who: Weir, Nodes: 1_000}, {Scenario: "liars", Who: Weir, Series: []Point{{0, 1}, {4, 2}}},
		{Scenario: "burst", Who: Jitsi}, {Scenario: "flash", Who: Weir}, {Scenario: "pack", Who: Weir},
	}, Aims: []Aim{{"burst", "none", "one", false}}}
	dir := t.TempDir()
	if err := r.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sim-steady.svg", "sim-scale.svg", "sim-time.svg"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "NaN") || strings.Contains(string(b), "Inf") {
			t.Errorf("%s: not a number in it", name)
		}
		d := xml.NewDecoder(strings.NewReader(string(b)))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "sim.md"))
	if err != nil || !strings.Contains(string(b), "| burst | none | one | missed |") {
		t.Errorf("%s, %v", b, err)
	}
}
