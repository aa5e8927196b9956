// Package gauge measures what a node uses: its media socket and its CPU, and what
// it could use of either. [Gauge.Run] reads both four times a second and tells the
// ledger, on the goroutine of its caller; nothing else runs.
package gauge

import (
	"context"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"weir/capacity/ledger"
	"weir/sfu/meter"
	"weir/sfu/udp"
)

// interval is between two readings.
const interval = 250 * time.Millisecond

// cpuSmoothing is the time constant of the CPU share, so that one busy moment
// does not turn clients away.
const cpuSmoothing = 3 * time.Second

// A Gauge measures what this node uses: its media socket and its CPU.
//
// CPU is what this process wants of what it can get; see cpuMeter.
type Gauge struct {
	Socket *udp.Socket
	Ledger *ledger.Ledger
	// CPULimit is the share of the CPU, 0…1, that counts as exhausted as of now.
	// 0: CPU is not counted.
	CPULimit func() float64

	cpu cpuMeter

	mu    sync.Mutex
	load  ledger.Load
	down  int64
	out   meter.Rate
	in    meter.Rate
	share float64
	cores float64
}

// Reading is what a Gauge last measured.
type Reading struct {
	ledger.Load
	Downlink int64 // bit/s
	Cores    float64
}

// Run measures until ctx is done, tells the ledger, and returns ctx.Err().
func (g *Gauge) Run(ctx context.Context) error {
	g.cpu.fsys = os.DirFS("/")
	g.sample(time.Now())
	tick := time.NewTicker(interval)
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
	used, cores, err := g.cpu.share(now)
	g.mu.Lock()
	g.out.Observe(now, c.BytesOut+c.PacketsOut*ipOverhead, c.PacketsOut)
	g.in.Observe(now, c.BytesIn+c.PacketsIn*ipOverhead, c.PacketsIn)
	if err == nil {
		g.share += min(1, interval.Seconds()/cpuSmoothing.Seconds()) * (used - g.share)
		g.cores = cores
	}
	g.load = ledger.Load{CPU: g.share, CPULimit: g.CPULimit()}
	g.load.Uplink, g.load.Packets = g.out.Rates()
	g.down, _ = g.in.Rates()
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
	return Reading{Load: g.load, Downlink: g.down, Cores: g.cores}
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
