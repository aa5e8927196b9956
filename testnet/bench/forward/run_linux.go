package forward

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"weir/capacity"
	"weir/capacity/task"
	"weir/testnet/load"
)

const (
	connectTime = 20 * time.Second
	late        = time.Second // for what is sent within the measurement
	floorTime   = 4 * time.Second

	generatorThreads = 4
)

// Run measures every server with every number of viewers. What was measured
// before an error is in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	b := &bench{cfg: cfg, report: &Report{Machine: describe(), Began: time.Now(), Duration: capacity.Milliseconds(cfg.Duration),
		Load: fmt.Sprintf("H264 of %.1f Mbit/s and %d frames/s, Opus of %d packets/s, AES-128-GCM", float64(load.BitRate)/1e6, load.FrameRate, load.AudioRate)}}
	b.report.Machine.Go = runtime.Version()
	b.report.Machine.LoadAverage = loadAverage()
	if b.pinned = cfg.ServerCPU != cfg.GeneratorCPU; b.pinned {
		var before unix.CPUSet
		if err := unix.SchedGetaffinity(0, &before); err != nil {
			return nil, err
		}
		if !before.IsSet(cfg.ServerCPU) || !before.IsSet(cfg.GeneratorCPU) {
			return nil, fmt.Errorf("%w: CPU %d for the server and CPU %d for the generator: this process may not use both", ErrInput, cfg.ServerCPU, cfg.GeneratorCPU)
		}
		if err := pin(os.Getpid(), only(cfg.GeneratorCPU)); err != nil {
			return nil, err
		}
		defer func() { _ = pin(os.Getpid(), &before) }() // it could a moment ago
		// One CPU, but the publisher does not wait for a reader in the kernel.
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(generatorThreads))
	}
	b.report.Pinned = b.pinned
	err := b.all(ctx)
	b.report.Elapsed = capacity.Milliseconds(time.Since(b.report.Began))
	return b.report, err
}

type bench struct {
	cfg    Config
	pinned bool
	report *Report
	runs   int
}

func (b *bench) all(ctx context.Context) error {
	for _, n := range b.cfg.Viewers {
		for round := 1; round <= b.cfg.Rounds; round++ {
			if !b.cfg.NoFloor {
				if err := b.floor(ctx, n, round); err != nil {
					return fmt.Errorf("floor of %d viewers: %w", n, err)
				}
			}
			servers := slices.Clone(b.cfg.Servers)
			if round%2 == 0 {
				slices.Reverse(servers) // none is always first
			}
			for _, s := range servers {
				row, err := b.measure(ctx, s, n, round)
				if err != nil {
					return fmt.Errorf("%s, %d viewers: %w", s.Name, n, err)
				}
				b.report.Rows = append(b.report.Rows, row)
				b.cfg.Log.Info("measured", "server", s.Name, "viewers", n, "round", round, "cpu_s_per_mpacket", fmt.Sprintf("%.2f", row.PerMillion),
					"lost", fmt.Sprintf("%.3f%%", 100*row.Lost), "p50_ms", row.P50, "p99_ms", row.P99)
			}
		}
	}
	return nil
}

func (b *bench) floor(ctx context.Context, n, round int) error {
	swarm, err := load.NewSwarm(b.cfg.Log)
	if err != nil {
		return err
	}
	defer swarm.Close()
	least, err := swarm.Floor(ctx, n, b.cfg.ServerCPU, min(floorTime, b.cfg.Duration))
	if err != nil {
		return err
	}
	f := Floor{Viewers: n, Round: round, PerMillion: least.PerMillion(), Share: least.CPU.Seconds() / least.Elapsed.Seconds(), Dropped: swarm.Dropped()}
	b.report.Floor = append(b.report.Floor, f)
	b.cfg.Log.Info("floor", "viewers", n, "round", round, "cpu_s_per_mpacket", fmt.Sprintf("%.2f", f.PerMillion), "share", fmt.Sprintf("%.2f", f.Share), "dropped", f.Dropped)
	return nil
}

// measure starts a server, a publisher and n viewers, and ends them.
func (b *bench) measure(ctx context.Context, s Server, n, round int) (row Row, err error) {
	b.runs++
	dir := filepath.Join(b.cfg.Dir, fmt.Sprintf("%d-%s", b.runs, s.Name))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return row, err
	}
	p, err := s.start(ctx, dir, b.cfg.ServerCPU, b.pinned)
	if err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	swarm, err := load.NewSwarm(b.cfg.Log)
	if err != nil {
		return row, err
	}
	defer swarm.Close()
	connect, cancel := context.WithTimeout(ctx, connectTime)
	publisher, err := swarm.Publish(connect, p.whip, connectTime)
	cancel()
	if err != nil {
		return row, err
	}
	defer publisher.Close()
	if err := task.Sleep(ctx, b.cfg.Settle); err != nil {
		return row, err
	}
	row = Row{Server: s.Name, Viewers: n, Round: round}
	before, _, err := memory(p.pid)
	if err != nil {
		return row, err
	}
	viewers, failure := b.join(ctx, swarm, p.whep, n)
	defer func() { leave(viewers) }()
	row.Joined = len(viewers)
	if failure != nil {
		row.Failure = failure.Error()
	}
	if len(viewers) == 0 {
		return row, failure
	}
	if err := task.Sleep(ctx, b.cfg.Settle); err != nil {
		return row, err
	}
	if err := b.watch(ctx, &row, swarm, viewers, p.pid); err != nil {
		return row, err
	}
	after, rss, err := memory(p.pid)
	if err != nil {
		return row, err
	}
	row.Memory, row.RSS = float64(after-before)/float64(len(viewers)), rss
	if b.cfg.Profiles != "" && p.admin != "" {
		if err := p.profile(ctx, filepath.Join(b.cfg.Profiles, fmt.Sprintf("%s-%d.pprof", s.Name, n))); err != nil {
			return row, err
		}
	}
	row.Keyframes = publisher.Keyframes()
	row.Limit = row.limit()
	return row, nil
}

// join makes viewers at the configured rate. It returns those that joined, and
// why the first of the others did not.
func (b *bench) join(ctx context.Context, swarm *load.Swarm, url string, n int) ([]*load.Viewer, error) {
	var mu sync.Mutex
	var viewers []*load.Viewer
	var failure error
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Duration(float64(time.Second) / b.cfg.Join))
	defer tick.Stop()
	for range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, connectTime)
			defer cancel()
			v, err := swarm.View(ctx, url, connectTime)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				viewers = append(viewers, v)
			} else if failure == nil {
				failure = err
			}
		})
		<-tick.C
	}
	wg.Wait()
	return viewers, failure
}

// leave ends the viewers' sessions, some at a time.
func leave(viewers []*load.Viewer) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for _, v := range viewers {
		slots <- struct{}{}
		wg.Go(func() {
			v.Close()
			<-slots
		})
	}
	wg.Wait()
}

// A reading is the state of both sides at one moment.
type reading struct {
	at                  time.Time
	server, self, idle  time.Duration
	arrived             uint64
	dropped, ownDropped uint64
}

func (b *bench) read(swarm *load.Swarm, pid int) (r reading, err error) {
	var errs [4]error
	r.at, r.arrived, r.ownDropped = time.Now(), swarm.Arrived(), swarm.Dropped()
	r.server, errs[0] = cpuTime(pid)
	r.self, errs[1] = cpuTime(os.Getpid())
	r.idle, errs[2] = idleTime(b.cfg.ServerCPU)
	r.dropped, errs[3] = drops(pid)
	return r, errors.Join(errs[:]...)
}

// watch fills in what is measured over the configured duration.
func (b *bench) watch(ctx context.Context, row *Row, swarm *load.Swarm, viewers []*load.Viewer, pid int) error {
	begin, err := b.read(swarm, pid)
	if err != nil {
		return err
	}
	var end reading
	var readErr error
	tally, err := swarm.Measure(ctx, viewers, b.cfg.Duration, late, func() { end, readErr = b.read(swarm, pid) })
	if err := errors.Join(err, readErr); err != nil {
		return err
	}
	took := end.at.Sub(begin.at).Seconds()
	packets := float64(end.arrived - begin.arrived)
	used := (end.server - begin.server).Seconds()
	row.Packets = packets / took
	if packets > 0 {
		row.PerMillion = used / packets * 1e6
	}
	row.ServerShare, row.GeneratorShare = used/took, (end.self-begin.self).Seconds()/took
	row.OthersShare = max(0, 1-(end.idle-begin.idle).Seconds()/took-row.ServerShare)
	row.ServerDropped, row.GeneratorDropped = end.dropped-begin.dropped, end.ownDropped-begin.ownDropped
	row.Unopened = swarm.Unopened()
	row.Lost, row.FramesLost, row.Lossy, row.Repeated = tally.Packets.Lost(), tally.Frames.Lost(), tally.Lossy, tally.Repeated
	row.P50, row.P99, row.Max = capacity.Milliseconds(tally.P50), capacity.Milliseconds(tally.P99), capacity.Milliseconds(tally.Max)
	var first []float64
	for _, v := range viewers {
		if d := v.FirstFrame(); d > 0 {
			first = append(first, capacity.Milliseconds(d))
		}
	}
	slices.Sort(first)
	row.FirstP50, row.FirstP95 = rank(first, 0.5), rank(first, 0.95)
	return nil
}

// rank is a quantile by nearest rank, 0 without values.
func rank(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
