package place

import (
	"math/rand/v2"
	"slices"
	"time"
)

const (
	// balanceFrom is the mean stress from which a region sends clients
	// elsewhere. Below it there is room enough, and near is better.
	balanceFrom = 0.5
	// elsewhereMost bounds the share of clients sent elsewhere.
	elsewhereMost = 0.5
	// loadAge is how long a region's load is used after it was heard.
	loadAge = time.Minute
	// lookEvery is how often a loaded region's seeker asks one other region for
	// its load.
	lookEvery = 10 * time.Second
	// loadSmoothing is the weight of a new value: shards of a region differ, and
	// what is noise would send clients far away for nothing.
	loadSmoothing = 0.5
	maxLoads      = 1_024
)

// Loads is a seeker's knowledge of how loaded regions are: the mean stress of
// their nodes, as holders report it with each answer. The zero value is ready
// for use, by one goroutine at a time.
type Loads struct {
	regions map[string]heardLoad
	looked  time.Time
}

type heardLoad struct {
	stress float64
	at     time.Time
}

// Heard takes in the mean stress of a shard of region.
func (l *Loads) Heard(now time.Time, region string, stress float64) {
	if l.regions == nil || len(l.regions) >= maxLoads {
		l.regions = make(map[string]heardLoad)
	}
	if old, ok := l.of(now, region); ok {
		stress = old + loadSmoothing*(stress-old)
	}
	l.regions[region] = heardLoad{stress, now}
}

func (l *Loads) of(now time.Time, region string) (stress float64, ok bool) {
	h, ok := l.regions[region]
	return h.stress, ok && now.Sub(h.at) < loadAge
}

// Next returns the region whose load a seeker in own is to ask for now, the one
// heard of longest ago, or "" if none is due. Near are regions, nearest first.
func (l *Loads) Next(now time.Time, own string, near []string) string {
	others := neighbours(own, near)
	if load, ok := l.of(now, own); !ok || load < balanceFrom || len(others) == 0 || now.Sub(l.looked) < lookEvery {
		return ""
	}
	l.looked = now
	return slices.MinFunc(others, func(a, b string) int { return l.regions[a].at.Compare(l.regions[b].at) })
}

// Elsewhere draws the region in which a client of own is to be placed: "" for
// own itself, or one of the nearest that are less loaded.
//
// Each region sends away balance percent of its clients for each percent by
// which it is fuller than the mean of itself and those, and to each of them in
// proportion to the difference: load flows like heat, until what comes and goes
// keeps the regions nearly even (Cybenko, "Dynamic Load Balancing for
// Distributed Memory Multiprocessors", JPDC 7(2), 1989).
func (l *Loads) Elsewhere(now time.Time, own string, near []string, balance float64, rnd *rand.Rand) string {
	load, ok := l.of(now, own)
	if !ok || load < balanceFrom || balance <= 0 {
		return ""
	}
	type lighter struct {
		region string
		share  float64
	}
	var list []lighter
	known, total := 1.0, 0.0
	for _, r := range neighbours(own, near) {
		other, ok := l.of(now, r)
		if !ok {
			continue
		}
		known++
		if other < load {
			list = append(list, lighter{r, balance * (load - other)})
			total += balance * (load - other)
		}
	}
	x := rnd.Float64() * max(1, total/known/elsewhereMost)
	for _, r := range list {
		if x -= r.share / known; x < 0 {
			return r.region
		}
	}
	return ""
}

// neighbours are the regions to balance with, nearest first.
func neighbours(own string, near []string) []string {
	others := slices.DeleteFunc(slices.Clone(near), func(r string) bool { return r == own })
	return others[:min(len(others), NearRegions+farRegions)]
}
