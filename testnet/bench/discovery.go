package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	gopsutil "github.com/shirou/gopsutil/v4/cpu"

	"weir/capacity"
	"weir/capacity/task"
	"weir/dht/directory"
	"weir/testnet/lab"
	"weir/testnet/model"
)

// A Mode is one way to distribute the servers' state.
type Mode string

// The compared modes. Seekers use the records, and reserve, in the same way in
// all of them.
const (
	ModeKademlia Mode = "kademlia" // the nodes closest to the key
	ModeBroker1  Mode = "broker-1" // one broker, in the middle of the region nearest to all others
	ModeBroker3  Mode = "broker-3" // three brokers, each in the middle of a region
	ModePull     Mode = "pull"     // no holder: the seeker asks every node for its own record
	ModePush     Mode = "push"     // all nodes: each node pushes its record to every other
	ModeRedis    Mode = "redis"    // a redis-server in the place of broker-1's broker
)

// Modes are all modes.
var Modes = []Mode{ModeKademlia, ModeBroker1, ModeBroker3, ModePull, ModePush, ModeRedis}

// discovery is the configuration of a lab's nodes for the mode.
func (m Mode) discovery() (discovery directory.Mode, brokers int) {
	switch m {
	case ModeBroker1:
		return directory.Broker, 1
	case ModeBroker3:
		return directory.Broker, 3
	case ModePull, ModeRedis: // with redis the nodes only reserve
		return directory.Pull, 0
	case ModePush:
		return directory.Push, 0
	}
	return directory.Kademlia, 0
}

// DiscoveryConfig is the configuration of [Discovery]. The zero value of an
// optional field means the default in its comment.
type DiscoveryConfig struct {
	Nodes []int  // sizes of the networks; default 5, 20, 50 and 100
	Modes []Mode // default: all
	Seed  uint64 // of the map, the load and the selections; default 1

	RTT      time.Duration // mean round trip between two nodes; default 100 ms
	Duration time.Duration // of each of the three phases; that of upkeep takes 15 s at least; default 5 s
	Rate     float64       // selections per second; default 20
	Calm     time.Duration // before the measurement, for routing tables to fill; default 5 s and more by size
	Redis    string        // the redis-server to start; default: as found in PATH

	Log *slog.Logger // progress; default: discarded
}

// Check fills in the defaults. The error says which field is wrong.
func (c *DiscoveryConfig) Check() error {
	if len(c.Nodes) == 0 {
		c.Nodes = []int{5, 20, 50, 100}
	}
	for _, n := range c.Nodes {
		if n < 3 || n > 250 {
			return fmt.Errorf("a network of %d nodes: 3 to 250 are possible in one process", n)
		}
	}
	if len(c.Modes) == 0 {
		c.Modes = Modes
	}
	for _, m := range c.Modes {
		if !slices.Contains(Modes, m) {
			return fmt.Errorf("mode %q: there are %s", m, join(Modes))
		}
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.RTT == 0 {
		c.RTT = 100 * time.Millisecond
	}
	if c.Duration == 0 {
		c.Duration = 5 * time.Second
	}
	if c.Rate == 0 {
		c.Rate = 20
	}
	switch {
	case c.RTT < 0 || c.RTT > time.Second:
		return fmt.Errorf("a mean round trip of %v: at most 1s", c.RTT)
	case c.Duration < time.Second || c.Duration > 10*time.Minute:
		return fmt.Errorf("phases of %v: 1s to 10m are possible", c.Duration)
	case c.Calm < 0 || c.Calm > 10*time.Minute:
		return fmt.Errorf("%v of calm: 0 to 10m are possible", c.Calm)
	case !(c.Rate > 0 && c.Rate <= 200):
		return fmt.Errorf("%v selections per second: more than 0 and at most 200 are possible", c.Rate)
	}
	if slices.Contains(c.Modes, ModeRedis) {
		var err error
		if c.Redis, err = findRedis(c.Redis); err != nil {
			return err
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

func join(modes []Mode) string {
	var names []string
	for _, m := range modes {
		names = append(names, string(m))
	}
	return strings.Join(names, ", ")
}

// DiscoveryReport is the result of [Discovery]. Times are in milliseconds.
type DiscoveryReport struct {
	Go       string         `json:"go"`
	CPUs     int            `json:"cpus"` // shared by all nodes
	Began    time.Time      `json:"began"`
	Elapsed  float64        `json:"elapsed_ms"`
	Seed     uint64         `json:"seed"`
	RTT      float64        `json:"mean_rtt_ms"`
	Phase    float64        `json:"phase_s"`
	Rate     float64        `json:"selections_per_second"`
	Measured []DiscoveryRow `json:"measured"`

	Simulated []SimulatedRow `json:"simulated"` // modelled, not measured
	Model     model.Params   `json:"model"`     // its parameters
}

// DiscoveryRow is one mode in a network of one size.
type DiscoveryRow struct {
	Mode  Mode    `json:"mode"`
	Nodes int     `json:"nodes"`
	Ready float64 `json:"ready_ms"` // from the first node's start until all were ready
	CPU   float64 `json:"cpu"`      // share of this machine used during selections, by all nodes together
	// Others is the share that other processes used meanwhile: if it is large,
	// times are unreliable. 0 if the kernel does not report it.
	Others float64 `json:"others"`

	Selections DiscoverySelections `json:"selections"`
	Upkeep     DiscoveryUpkeep     `json:"upkeep"`
	Death      DiscoveryDeath      `json:"death"`
}

// DiscoverySelections are placements, with reservations, in a healthy network.
type DiscoverySelections struct {
	N        int            `json:"n"`
	Failed   int            `json:"failed"`             // though there was a node with room
	Failures map[string]int `json:"failures,omitempty"` // by reason
	NoRoom   int            `json:"no_room"`            // there was none: not counted in N
	Messages Spread         `json:"messages"`           // up to the decision
	Bytes    Spread         `json:"bytes"`              // stream payload of those messages, both ways
	Time     Spread         `json:"time_ms"`            //
	Age      Spread         `json:"age_ms"`             // of the record that decided which node to ask
	Overall  float64        `json:"overall_bytes"`      // bytes added to all nodes' stream traffic by a selection: late answers, released leases and changed records too

	// Quality. A score is the policy's, from 0 to 1, by the truth at the start
	// of the selection; regret is the score of the best node less that of the
	// chosen one.
	Regret        Spread  `json:"regret"`
	RegretKnowing float64 `json:"regret_knowing"` // mean, with complete knowledge: two drawn by the policy, the nearer taken
	RegretRandom  float64 `json:"regret_random"`  // mean, of a random node with room
	FirstRefused  float64 `json:"first_refused"`  // share of selections refused by one of the first two nodes
	StressError   Spread  `json:"stress_error"`   // |recorded − true| stress of the chosen node
}

// DiscoveryUpkeep is the cost of a second while load changes and no node
// selects: bytes per second, in and out.
type DiscoveryUpkeep struct {
	Records DiscoveryLoad `json:"records"` // stream payload of keeping records (for redis: of its connections)
	Routing DiscoveryLoad `json:"routing"` // stream payload of everything else: Kademlia, identify
	Wire    DiscoveryLoad `json:"wire"`    // IP packets: with QUIC, UDP and IP
}

// DiscoveryLoad is a load by node.
type DiscoveryLoad struct {
	Mean    float64 `json:"mean"`    // of the nodes that publish
	Busiest float64 `json:"busiest"` // of all: holders, brokers, redis
}

// DiscoveryDeath is the effect of a power failure of the busiest holder.
type DiscoveryDeath struct {
	Who       string         `json:"who"`
	N         int            `json:"n"`                  // selections begun after the death
	Failed    int            `json:"failed"`             //
	Failures  map[string]int `json:"failures,omitempty"` // by reason
	Watched   float64        `json:"watched_ms"`         // duration of the observation
	Recovered bool           `json:"recovered"`          // the last selections succeeded
	Recovery  float64        `json:"recovery_ms"`        // until the last failure; 0: there was none
	Time      Spread         `json:"time_ms"`            // of those that succeeded
	Stranded  int            `json:"stranded"`           // placed on the dead node
}

// Discovery runs every mode on the same map, with the same load and the same
// selections, one after the other, and compares them. With an error it returns
// the results so far.
func Discovery(ctx context.Context, cfg DiscoveryConfig) (*DiscoveryReport, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	// Thousands of connections make for a large heap; frequent collections
	// would show in the times.
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	report := &DiscoveryReport{
		Go: runtime.Version(), CPUs: runtime.NumCPU(), Began: time.Now(),
		Seed: cfg.Seed, RTT: capacity.Milliseconds(cfg.RTT), Phase: cfg.Duration.Seconds(), Rate: cfg.Rate,
	}
	for _, n := range cfg.Nodes {
		for _, m := range cfg.Modes {
			row, err := measureMode(ctx, cfg, m, n)
			if err != nil {
				return report, errors.Join(fmt.Errorf("%s with %d nodes: %w", m, n, err), report.finish())
			}
			report.Measured = append(report.Measured, row)
			cfg.Log.Info("measured", "nodes", n, "mode", m, "kB", rounded(row.Selections.Bytes.P50/1000), "ms", rounded(row.Selections.Time.P50),
				"upkeep", rounded(row.Upkeep.Records.Mean), "busiest", rounded(row.Upkeep.Records.Busiest), "failed", row.Selections.Failed, "failed_after_death", row.Death.Failed, "cpu", rounded(row.CPU), "others", rounded(row.Others))
			runtime.GC()
		}
	}
	return report, report.finish()
}

func (r *DiscoveryReport) finish() error {
	r.Elapsed = capacity.Milliseconds(time.Since(r.Began))
	return r.Reckon()
}

func rounded(x float64) string { return fmt.Sprintf("%.3g", x) }

const (
	// A ready network is left alone for calm and calmNode for each node:
	// routing tables fill, holders are looked up, and every node asks each
	// connected node once about itself, two a second.
	calm     = 5 * time.Second
	calmNode = 300 * time.Millisecond
	// settleTime is how long a node in a small network, where all nodes hold
	// all records, has to run before it trusts its own memory: a record's TTL
	// and some.
	settleTime = 17 * time.Second
	fewNodes   = 9
	// upkeepLeast is the minimum duration of the upkeep measurement: holders
	// confirm records every 15 s, and for nodes started together this happens
	// together.
	upkeepLeast = 15 * time.Second
	regions     = 4
)

// A contest is one mode in one network during its measurement.
type contest struct {
	cfg   DiscoveryConfig
	mode  Mode
	lab   *lab.Lab
	nodes []*lab.Node
	truth *truth
	redis *redisStore // nil in other modes
	log   *slog.Logger
}

func measureMode(ctx context.Context, cfg DiscoveryConfig, mode Mode, size int) (row DiscoveryRow, err error) {
	row = DiscoveryRow{Mode: mode, Nodes: size}
	log := cfg.Log.With("nodes", size, "mode", mode)
	log.Info("starting")
	discovery, brokers := mode.discovery()
	began := time.Now()
	l, err := lab.Up(ctx, lab.Config{Nodes: size, Seed: cfg.Seed, RTT: cfg.RTT, Regions: regions, Discovery: discovery, Brokers: brokers, Ready: 2 * time.Minute})
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	row.Ready = capacity.Milliseconds(time.Since(began))
	c := &contest{cfg: cfg, mode: mode, lab: l, nodes: l.Nodes(), log: log}
	if c.truth, err = newTruth(c.nodes, cfg.Seed); err != nil {
		return row, err
	}

	ctx, cancel := context.WithCancel(ctx)
	load := startLoad(ctx, c.nodes, cfg.Seed)
	defer load.wait()
	if mode == ModeRedis {
		if c.redis, err = startRedis(ctx, cfg.Redis, l); err != nil {
			cancel()
			return row, err
		}
		defer func() { err = errors.Join(err, c.redis.close()) }()
	}
	defer cancel()

	quiet := cfg.Calm
	if quiet == 0 {
		quiet = calm + time.Duration(size)*calmNode
	}
	if size <= fewNodes && mode == ModeKademlia || mode == ModePush {
		quiet = max(quiet, settleTime)
	}
	if err := task.Sleep(ctx, quiet); err != nil {
		return row, err
	}

	log.Info("measuring upkeep")
	before := c.meter()
	if err := task.Sleep(ctx, max(cfg.Duration, upkeepLeast)); err != nil {
		return row, err
	}
	idle := c.meter().since(before)
	row.Upkeep = idle.upkeep()

	log.Info("measuring selections")
	plan := newPlan(cfg, size)
	before = c.meter()
	cpu, all := cpuTime(), busyTime()
	start := time.Now()
	made, err := c.run(ctx, plan, cfg.Duration)
	if err != nil {
		return row, err
	}
	whole := float64(time.Since(start)) * float64(runtime.NumCPU())
	row.CPU = float64(cpuTime()-cpu) / whole
	row.Others = max(0, float64(busyTime()-all)/whole-row.CPU)
	row.Selections = summarise(made)
	busy := c.meter().since(before)
	if n := len(made); n > 0 {
		row.Selections.Overall = max(0, busy.sent-idle.sent*busy.seconds/idle.seconds) / float64(n)
	}

	who, victim, kill := c.busiest(idle)
	log.Info("killing the busiest", "who", who)
	kill()
	died := time.Now()
	after, err := c.run(ctx, plan, cfg.Duration)
	if err != nil {
		return row, err
	}
	row.Death = mourn(after, died, victim)
	row.Death.Who = who
	return row, nil
}

// cpuTime is the CPU time used by this process.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// busyTime is the CPU time used by all processes, or 0 if it is not known.
func busyTime() time.Duration {
	times, err := gopsutil.Times(false)
	if err != nil || len(times) == 0 {
		return 0
	}
	t := times[0]
	return time.Duration((t.User + t.System + t.Nice + t.Irq + t.Softirq) * float64(time.Second))
}
