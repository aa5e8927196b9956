package layer

import (
	"slices"
	"time"

	"weir/sfu/meter"
)

const (
	// silence is how long an encoding may send nothing, while another one does,
	// until it counts as stopped.
	silence = time.Second
	// proven is how long an encoding has to flow until those who get another one
	// may change to it.
	proven = time.Second
	// told is how many spatial and temporal layers are told apart.
	told = 4
)

// A Flow measures what comes of one encoding. The zero value is ready. It has no
// lock.
type Flow struct {
	last, since time.Time // of the last packet; since when it flows without a pause
	size        Size
	bytes       [told][told]int64 // by spatial and temporal layer
	rates       [told][told]meter.Rate
}

// Count counts a packet of size bytes, received at now.
func (f *Flow) Count(i *Info, size int, now time.Time) {
	if now.Sub(f.last) > silence {
		f.since = now
	}
	f.last = now
	f.bytes[min(i.Spatial, told-1)][min(i.Temporal, told-1)] += int64(size)
	if i.Sized {
		f.size = i.Size
	}
}

// Sample updates the rates. Call it some times a second.
func (f *Flow) Sample(now time.Time) {
	for s := range f.rates {
		for t := range f.rates[s] {
			f.rates[s][t].Observe(now, f.bytes[s][t], 0)
		}
	}
}

// Rungs returns all ways in which encodings can be sent, of which these are the
// RIDs and the flows, the least first: at least one for each encoding. By size
// where sizes are known and differ, else in the given order.
func Rungs(rids []string, flows []Flow, now time.Time) (all []Rung) {
	var newest time.Time
	for i := range flows {
		if flows[i].last.After(newest) {
			newest = flows[i].last
		}
	}
	for _, i := range bySize(flows) {
		f := &flows[i]
		all = append(all, f.rungs(Rung{
			Encoding: i, RID: rids[i], Size: f.size,
			Active: !f.last.IsZero() && newest.Sub(f.last) < silence,
			Proven: now.Sub(f.since) >= proven,
		})...)
	}
	return all
}

// bySize returns the indices of flows by size; those of unknown size keep their
// places.
func bySize(flows []Flow) []int {
	order := make([]int, len(flows))
	var known []int
	for i := range flows {
		order[i] = i
		if flows[i].size.area() > 0 {
			known = append(known, i)
		}
	}
	sorted := slices.Clone(known)
	slices.SortStableFunc(sorted, func(a, b int) int { return flows[a].size.area() - flows[b].size.area() })
	for i, place := range known {
		order[place] = sorted[i]
	}
	return order
}

// rungs returns those of one encoding.
func (f *Flow) rungs(r Rung) (all []Rung) {
	var top Point // the layers that flow
	var bits [told][told]int64
	for s := range bits {
		for t := range bits[s] {
			if bits[s][t], _ = f.rates[s][t].Rates(); bits[s][t] > 0 {
				top = Point{max(top.Spatial, uint8(s)), max(top.Temporal, uint8(t))}
			}
		}
	}
	for r.Spatial = 0; r.Spatial <= top.Spatial; r.Spatial++ {
		for r.Temporal = 0; r.Temporal <= top.Temporal; r.Temporal++ {
			r.Bits = 0
			for s := range r.Spatial + 1 {
				for t := range r.Temporal + 1 {
					r.Bits += bits[s][t]
				}
			}
			all = append(all, r)
		}
	}
	return all
}
