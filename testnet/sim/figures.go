package sim

import (
	"math"
	"slices"
	"time"

	"weir/testnet/model"
)

// cost is what one placement took.
type cost struct {
	messages int
	bytes    float64
}

// figures are what a run counts.
type figures struct {
	counting bool
	feedback bool // seekers notice what is delivered
	weights  model.Sizes

	placed       int // or blocked
	firstRefused int // the node tried first had no room
	bothRefused  int // nor the one tried at the same time
	blocked      int
	overfull     int // placed on a node that had no room

	messages int
	bytes    float64
	times    []time.Duration
	on       map[*node]int // placements
	records  int           // published

	reached  int           // placements of which distance is the sum of round trips
	distance time.Duration // from the node that one came to first to the one chosen
	degraded int           // of those, to a node that delivered less than it should

	spread []float64 // s.d. of load at moments
	peak   float64   // highest load of one node
}

func (f *figures) sizes() *model.Sizes { return &f.weights }

// count notes a placement that came to its end; on is nil if it was blocked.
func (f *figures) count(c *cost, took time.Duration, on *node) {
	if !f.counting {
		return
	}
	f.placed++
	f.messages += c.messages
	f.bytes += c.bytes
	f.times = append(f.times, took)
	if on == nil {
		f.blocked++
		return
	}
	if f.on == nil {
		f.on = make(map[*node]int)
	}
	f.on[on]++
}

// sent notes that a viewer of s is sent to n.
func (w *world) sent(s, n *node) {
	if !w.counting {
		return
	}
	w.reached++
	w.distance += s.rtt(n)
	if n.active >= n.effective() {
		w.degraded++
	}
}

// look notes how evenly the nodes are loaded now.
func (w *world) look() {
	if !w.counting {
		return
	}
	var sum, squares float64
	for _, n := range w.nodes {
		x := n.load()
		sum += x
		squares += x * x
		w.peak = max(w.peak, x)
	}
	n := float64(len(w.nodes))
	w.spread = append(w.spread, math.Sqrt(max(0, squares/n-(sum/n)*(sum/n))))
}

// every looks each d until then.
func (w *world) every(d time.Duration, until time.Duration, do func()) {
	var next func()
	next = func() {
		do()
		if w.now+d <= until {
			w.after(d, next)
		}
	}
	w.after(d, next)
}

func mean(values []float64) float64 {
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	return sum / float64(max(1, len(values)))
}

func quantile(values []time.Duration, q float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

func share(part, whole int) float64 { return float64(part) / float64(max(1, whole)) }
