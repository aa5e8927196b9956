package sfu

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"

	"weir/capacity"
)

// sampleInterval is between two readings of the meters.
const sampleInterval = 250 * time.Millisecond

// cpuSmoothing is the time constant of the CPU share, so that one busy moment
// does not turn clients away.
const cpuSmoothing = 3 * time.Second

// A Gauge measures what this node uses: its media socket and its CPU.
//
// CPU is the control group's where it has a limit of its own (cgroup v2), else
// the whole machine's, since other processes' use is not ours to have.
type Gauge struct {
	Socket *Socket
	Ledger *capacity.Ledger
	// CPULimit is the share of the CPU, 0…1, that counts as exhausted. 0: CPU is
	// not counted.
	CPULimit float64

	cpu cpuMeter

	mu    sync.Mutex
	load  capacity.Load
	down  int64
	out   meter
	in    meter
	share float64
}

// Reading is what a Gauge last measured.
type Reading struct {
	capacity.Load
	Downlink int64 // bit/s
	Cores    float64
}

// Run measures until ctx is done, tells the ledger, and returns ctx.Err().
func (g *Gauge) Run(ctx context.Context) error {
	g.sample(time.Now())
	tick := time.NewTicker(sampleInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			g.sample(now)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *Gauge) sample(now time.Time) {
	c := g.Socket.Counters()
	used, err := g.cpu.share(now)
	g.mu.Lock()
	g.out.observe(now, c.BytesOut+c.PacketsOut*ipOverhead, c.PacketsOut)
	g.in.observe(now, c.BytesIn+c.PacketsIn*ipOverhead, c.PacketsIn)
	if err == nil {
		g.share += min(1, sampleInterval.Seconds()/cpuSmoothing.Seconds()) * (used - g.share)
	}
	g.load = capacity.Load{CPU: g.share, CPULimit: g.CPULimit}
	g.load.Uplink, g.load.Packets = g.out.rates()
	g.down, _ = g.in.rates()
	load := g.load
	g.mu.Unlock()
	g.Ledger.Observe(now, load)
}

// ipOverhead is IPv4 and UDP, in bytes: what the link carries beside payload.
const ipOverhead = 20 + 8

// Read returns the last reading.
func (g *Gauge) Read() Reading {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Reading{Load: g.load, Downlink: g.down, Cores: Cores()}
}

// Cores is how many CPU cores this process may use.
func Cores() float64 {
	if quota, ok := cgroupQuota(); ok {
		return quota
	}
	return float64(runtime.NumCPU())
}

// cpuMeter turns CPU time into a share. It belongs to one goroutine.
type cpuMeter struct {
	at         time.Time
	busy, idle float64 // seconds, of all cores
	live       bool
}

// share is the part of the CPU in use since the last call, 0…1.
func (m *cpuMeter) share(now time.Time) (float64, error) {
	var busy, idle float64
	quota, limited := cgroupQuota()
	if limited {
		used, err := cgroupUsage()
		if err != nil {
			return 0, err
		}
		busy = used
		idle = m.idle + now.Sub(m.at).Seconds()*quota - (busy - m.busy)
	} else {
		times, err := cpu.Times(false)
		if err != nil || len(times) != 1 {
			return 0, fmt.Errorf("read CPU times: %w", err)
		}
		t := times[0]
		idle = t.Idle + t.Iowait
		busy = t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal
	}
	share := 0.0
	if total := busy - m.busy + idle - m.idle; m.live && total > 0 {
		share = min(1, max(0, (busy-m.busy)/total))
	}
	m.at, m.busy, m.idle, m.live = now, busy, idle, true
	return share, nil
}

// The control group's files, version 2, as seen from within it.
const (
	cgroupMax  = "/sys/fs/cgroup/cpu.max"
	cgroupStat = "/sys/fs/cgroup/cpu.stat"
)

// cgroupQuota is the cores that the control group may use, if it is limited.
func cgroupQuota() (float64, bool) {
	b, err := os.ReadFile(cgroupMax)
	if err != nil {
		return 0, false
	}
	return parseQuota(string(b))
}

// parseQuota reads "quota period", in µs; a quota of "max" is none.
func parseQuota(s string) (float64, bool) {
	quota, period, ok := strings.Cut(strings.TrimSpace(s), " ")
	q, err := strconv.ParseFloat(quota, 64)
	p, err2 := strconv.ParseFloat(period, 64)
	if !ok || err != nil || err2 != nil || q <= 0 || p <= 0 {
		return 0, false
	}
	return q / p, true
}

// cgroupUsage is the CPU time of the control group, in seconds.
func cgroupUsage() (float64, error) {
	b, err := os.ReadFile(cgroupStat)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "usage_usec "); ok {
			us, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
			return us / 1e6, err
		}
	}
	return 0, fmt.Errorf("%s has no usage_usec", cgroupStat)
}

// DefaultUplink guesses the uplink from the fastest network card, in bit/s, or
// 1 Gbit/s where no card tells its speed.
func DefaultUplink() int64 {
	best := int64(0)
	cards, err := os.ReadDir("/sys/class/net")
	if err == nil {
		for _, card := range cards {
			b, err := os.ReadFile("/sys/class/net/" + card.Name() + "/speed")
			if err != nil {
				continue
			}
			if mbit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
				best = max(best, mbit*1_000_000)
			}
		}
	}
	if best == 0 {
		return 1_000_000_000
	}
	return best
}
