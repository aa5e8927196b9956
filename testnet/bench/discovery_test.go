package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/testnet/lab"
	"weir/testnet/model"
)

func TestDiscoveryCheckTellsWhatIsWrong(t *testing.T) {
	noRedis := Modes[:len(Modes)-1]
	for name, c := range map[string]struct {
		cfg  DiscoveryConfig
		want string // in the error; "" for none
	}{
		"everything else has a default":    {DiscoveryConfig{Modes: noRedis}, ""},
		"two nodes leave none to choose":   {DiscoveryConfig{Nodes: []int{2}, Modes: noRedis}, "3 to 250"},
		"a thousand do not fit":            {DiscoveryConfig{Nodes: []int{1000}, Modes: noRedis}, "3 to 250"},
		"an unknown mode":                  {DiscoveryConfig{Modes: []Mode{"raft"}}, "broker-3"},
		"a phase too short to see much in": {DiscoveryConfig{Modes: noRedis, Duration: time.Millisecond}, "1s to 10m"},
		"a rate that is no number":         {DiscoveryConfig{Modes: noRedis, Rate: math.NaN()}, "more than 0"},
		"redis is not installed":           {DiscoveryConfig{Modes: Modes, Redis: "/no/redis-server"}, "apt-get install redis-server"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.cfg.Check()
			if c.want == "" && err != nil {
				t.Errorf("Check = %v", err)
			}
			if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("Check = %v, want it to say %q", err, c.want)
			}
		})
	}
}

// The smallest comparison measures everything once, with real nodes, and the
// model agrees with the measurement: messages to within two, bytes to within a
// factor of 1.5, times and upkeep, which are less certain after a short run, of
// two, and the busiest node's upkeep, an extreme over some seconds of one node,
// of three.
func TestDiscoveryAndItsModel(t *testing.T) {
	if testing.Short() {
		t.Skip("measures for half a minute")
	}
	defer goleak.VerifyNone(t)
	const n = 20
	cfg := DiscoveryConfig{Nodes: []int{n}, Modes: []Mode{ModeKademlia, ModeBroker1, ModePull}, Duration: 3 * time.Second, Rate: 30, Calm: 9 * time.Second}
	report, err := Discovery(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	modelled := map[Mode]SimulatedRow{}
	for _, r := range report.Simulated {
		if r.Nodes == n {
			modelled[Mode(r.Mode)] = r
		}
	}
	within := func(m Mode, what string, measured, modelled, factor float64) {
		t.Helper()
		t.Logf("%s: %s: measured %.4g, modelled %.4g", m, what, measured, modelled)
		if ratio := measured / modelled; !(max(ratio, 1/ratio) <= factor) {
			t.Errorf("%s: %s: measured %.4g, modelled %.4g: apart by more than a factor of %v", m, what, measured, modelled, factor)
		}
	}
	for _, row := range report.Measured {
		s, r := row.Selections, modelled[row.Mode]
		if s.N < 50 || s.Failed > s.N/20 || s.Age.Max > 20_000 || s.Regret.Mean > 0.5 || s.Time.Min <= 0 {
			t.Errorf("%s: selections %+v", row.Mode, s)
		}
		if u := row.Upkeep; u.Wire.Mean < u.Records.Mean || u.Records.Busiest < u.Records.Mean {
			t.Errorf("%s: upkeep %+v", row.Mode, u)
		}
		if math.Abs(s.Messages.Mean-r.Messages) > 2 {
			t.Errorf("%s: %.1f messages measured, %.1f modelled", row.Mode, s.Messages.Mean, r.Messages)
		}
		within(row.Mode, "bytes per selection", s.Bytes.Mean, r.Bytes, 1.5)
		within(row.Mode, "time of a selection", s.Time.P50, r.TimeP50, 2)
		if row.Mode != ModePull { // its upkeep is close to zero
			within(row.Mode, "upkeep", row.Upkeep.Records.Mean, r.Upkeep, 2)
			within(row.Mode, "upkeep of the busiest", row.Upkeep.Records.Busiest, r.Busiest, 3)
		}
		d := row.Death
		switch row.Mode {
		case ModeBroker1:
			if d.Failed < d.N/2 || d.Recovered || d.Who != "broker 1" {
				t.Errorf("without its only broker: %+v", d)
			}
		default:
			if d.N < 50 || d.Failed > d.N/5 {
				t.Errorf("%s: after the busiest has died: %+v", row.Mode, d)
			}
		}
	}

	dir := t.TempDir()
	if err := report.Write(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"discovery.json":        `"mode": "broker-1"`,
		"discovery.md":          "| 20 | kademlia |",
		"discovery-cost.svg":    "modelled, not measured",
		"discovery-quality.svg": "Regret",
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s lacks %q (%v):\n%.400s", name, want, err, b)
		}
		if strings.HasSuffix(name, ".json") && !json.Valid(b) {
			t.Errorf("%s is not JSON", name)
		}
	}
}

// A written report can be read and drawn again; other files are refused.
func TestReadDiscovery(t *testing.T) {
	report := &DiscoveryReport{Seed: 1, RTT: 100, Measured: []DiscoveryRow{{Mode: ModePush, Nodes: 5}}}
	dir := t.TempDir()
	if err := report.Write(dir); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "discovery.json")
	again, err := ReadDiscovery(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(again.Measured) != 1 || again.Measured[0].Mode != ModePush || again.Measured[0].Nodes != 5 {
		t.Errorf("read %+v", again.Measured)
	}
	if len(again.Simulated) != 1+len(simulatedSizes) || again.Simulated[0].Mode != string(ModePush) {
		t.Errorf("modelled %+v", again.Simulated)
	}
	for name, text := range map[string]string{
		"nothing":      "",
		"no report":    "{}",
		"another mode": `{"seed":1,"mean_rtt_ms":100,"measured":[{"mode":"raft","nodes":5}]}`,
		"absurd":       `{"seed":1,"mean_rtt_ms":1e300,"measured":[{"mode":"kademlia","nodes":5}]}`,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadDiscovery(file); err == nil || !strings.Contains(err.Error(), "no report") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The reported cost of a read of redis is the traffic of its connection, and
// the distance takes its time.
func TestRedis(t *testing.T) {
	path, err := findRedis("")
	if err != nil {
		t.Skip("redis-server is not installed; testnet/deps.sh redis-server does it")
	}
	defer goleak.VerifyNone(t)
	l, err := lab.Up(t.Context(), lab.Config{Nodes: 3, Seed: 1, RTT: 60 * time.Millisecond, Discovery: "pull"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := startRedis(t.Context(), path, l)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	seeker := l.Nodes()[2]
	deadline := time.Now().Add(10 * time.Second)
	for {
		sealed, _, err := s.read(t.Context(), seeker)
		if err == nil && len(sealed) == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d records, want 3: %v", len(sealed), err)
		}
	}
	matched := false
	for range 20 { // the node's own writes interrupt now and then
		before, _ := s.traffic(seeker.Index)
		began := time.Now()
		sealed, cost, err := s.read(t.Context(), seeker)
		took := time.Since(began)
		after, _ := s.traffic(seeker.Index)
		if err != nil || len(sealed) != 3 {
			t.Fatalf("%d records: %v", len(sealed), err)
		}
		for _, b := range sealed {
			if _, err := signed.OpenRecord(b, time.Now()); err != nil {
				t.Errorf("not a record: %v", err)
			}
		}
		if least := 2 * seeker.At.OneWay(s.at); took < least {
			t.Errorf("read in %v, the way there and back takes %v", took, least)
		}
		matched = matched || after-before == float64(cost)
	}
	if !matched {
		t.Error("no read cost what it was said to")
	}
	s.kill()
	if _, _, err := s.read(t.Context(), seeker); err == nil {
		t.Error("a redis that was killed answered")
	}
}

func TestPublishing(t *testing.T) {
	rate, confirmed, whole := publishing(1)
	if rate < 0.2 || rate > 2 {
		t.Errorf("%.2f records per second: a keepalive alone makes 0.2, the pace allows 2", rate)
	}
	if confirmed <= 0.05 || confirmed > 1 {
		t.Errorf("a share of %.2f is confirmed", confirmed)
	}
	if least := 1 / (rate * 120); whole < least*0.99 || whole > confirmed {
		t.Errorf("a share of %.2f is whole: once in two minutes makes %.2f, and of %.2f that are confirmed", whole, least, confirmed)
	}
}

func TestMourn(t *testing.T) {
	died := time.Now()
	at := func(s float64, err error, chosen int) made {
		return made{at: died.Add(time.Duration(s * float64(time.Second))), err: err, chosen: chosen, elapsed: time.Millisecond, insight: insight{best: 1}}
	}
	refused := &capacity.Refusal{Reason: "sessions"}
	noRoom := at(3, refused, -1)
	noRoom.best = math.NaN()
	for name, c := range map[string]struct {
		made      []made
		failed    int
		recovered bool
		recovery  float64
		stranded  int
	}{
		"nobody notices":                     {[]made{at(0.1, nil, 1), at(0.2, nil, 2)}, 0, true, 0, 0},
		"it takes a second":                  {[]made{at(0.1, nil, 1), at(1, errors.New("x"), -1), at(2, nil, 1)}, 1, true, 1000, 0},
		"never again":                        {[]made{at(0.1, errors.New("x"), -1), at(1, errors.New("x"), -1)}, 2, false, 1000, 0},
		"a refusal without room is no fault": {[]made{at(1, nil, 1), noRoom}, 0, true, 0, 0},
		"the dead are chosen":                {[]made{at(1, nil, 7)}, 0, true, 0, 1},
	} {
		d := mourn(c.made, died, 7)
		if d.Failed != c.failed || d.Recovered != c.recovered || d.Recovery != c.recovery || d.Stranded != c.stranded {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func TestPlotsAreDrawnOfAnything(t *testing.T) {
	for name, r := range map[string]*DiscoveryReport{
		"nothing": {},
		"one row": {Measured: []DiscoveryRow{{Mode: ModeKademlia, Nodes: 5, Selections: DiscoverySelections{N: 1, Bytes: Spread{N: 1, P50: 900}}}}},
		"zeroes":  {Measured: []DiscoveryRow{{Mode: ModeRedis, Nodes: 5}, {Mode: ModeRedis, Nodes: 20}}},
		"modelled": {Simulated: []SimulatedRow{
			{Mode: "kademlia", Nodes: 1_000, Bytes: 2e3, TimeP50: 60}, {Mode: "kademlia", Nodes: 1_000_000, Bytes: 2e9, TimeP50: 60}}},
	} {
		for _, draw := range []func(io.Writer) error{r.plotCost, r.plotQuality} {
			var b bytes.Buffer
			if err := draw(&b); err != nil {
				t.Fatal(err)
			}
			if s := b.String(); strings.Contains(s, "NaN") || strings.Contains(s, "Inf") {
				t.Errorf("%s: not a number in the plot", name)
			}
			d := xml.NewDecoder(&b)
			for {
				if _, err := d.Token(); err == io.EOF {
					break
				} else if err != nil {
					t.Fatalf("%s: not XML: %v", name, err)
				}
			}
		}
	}
}

// The model has every mode of the benchmark.
func TestModelKnowsTheModes(t *testing.T) {
	for i, m := range Modes {
		if model.Modes[i] != string(m) {
			t.Errorf("mode %q is %q in the model", m, model.Modes[i])
		}
	}
}
