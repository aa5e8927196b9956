package sim

import (
	"math"
	"slices"
	"time"

	"weir/testnet/model"
)

// cost is the cost of one placement.
type cost struct {
	messages int
	bytes    float64
}

// figures are the counts of a run.
type figures struct {
	counting bool
	feedback bool // seekers measure what is delivered
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

	reached  int           // placements in the sum of round trips, distance
	distance time.Duration // from the node of the first request to the chosen one
	degraded int           // of those, to a node that delivered too little

	spread []float64 // s.d. of load at sampling times
	peak   float64   // highest load of one node
}

func (f *figures) sizes() *model.Sizes { return &f.weights }

// count counts a finished placement; on is nil if it was blocked.
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

// sent counts a viewer of s sent to n.
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

// look samples how evenly the nodes are loaded now.
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

// every calls do at intervals of d until then.
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
