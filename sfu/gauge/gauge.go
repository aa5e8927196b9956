// Package gauge measures the use of a node's media socket and CPU, and how late
// it serves packets. [Gauge.Run] reads them four times a second and reports them
// to the ledger, on its caller's goroutine; the package starts none.
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

// interval is the time between two readings.
const interval = 5 * delayEvery

// cpuSmoothing is the time constant of the CPU share, so that one busy moment
// does not refuse clients.
const cpuSmoothing = 3 * time.Second

// A Gauge measures the use of this node's media socket and CPU, and its delay.
//
// CPU is the share that this process needs of the available CPU; see cpuMeter.
type Gauge struct {
	Socket *udp.Socket
	Ledger *ledger.Ledger
	// CPULimit returns the share of the CPU, 0…1, that currently counts as
	// exhausted. 0: CPU is not counted.
	CPULimit func() float64
	// DelayLimit returns the delay from which on nothing more is taken. 0: it is
	// not counted.
	DelayLimit func() time.Duration

	cpu   cpuMeter
	delay delayMeter

	mu    sync.Mutex
	load  ledger.Load
	down  int64
	out   meter.Rate
	in    meter.Rate
	share float64
	cores float64
}

// Reading is the last measurement of a Gauge.
type Reading struct {
	ledger.Load
	Downlink int64 // bit/s
	Cores    float64
}

// Run measures until ctx is done, reports to the ledger, and returns ctx.Err().
func (g *Gauge) Run(ctx context.Context) error {
	g.cpu.fsys = os.DirFS("/")
	g.sample(time.Now())
	tick := time.NewTicker(delayEvery)
	defer tick.Stop()
	sampled := time.Now()
	for {
		select {
		case due := <-tick.C:
			now := time.Now()
			g.delay.observe(now.Sub(due))
			if now.Sub(sampled) >= interval-delayEvery/2 {
				g.sample(now)
				sampled = now
			}
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
	g.load = ledger.Load{CPU: g.share, CPULimit: g.CPULimit(), Delay: g.delay.median(), DelayLimit: g.DelayLimit()}
	g.load.Uplink, g.load.Packets = g.out.Rates()
	g.down, _ = g.in.Rates()
	load := g.load
	g.mu.Unlock()
	g.Ledger.Observe(now, load)
}

// ipOverhead is the size of the IPv4 and UDP headers, in bytes.
const ipOverhead = 20 + 8

// Read returns the last reading.
func (g *Gauge) Read() Reading {
	g.mu.Lock()
	defer g.mu.Unlock()
	return Reading{Load: g.load, Downlink: g.down, Cores: g.cores}
}

// DefaultUplink guesses the uplink from the fastest network card, in bit/s, or
// 1 Gbit/s where no card reports its speed.
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
