package layer

// A Rung is one way in which a track can be sent. Those of one encoding with the
// same spatial layer are neighbours, by temporal layer.
type Rung struct {
	Point
	Encoding int // of simulcast
	RID      string
	Bits     int64 // bit/s; 0: not measured yet
	Active   bool  // it flows
	Proven   bool  // for long enough that those who get another may change to it
	Size     Size  // of the encoding; zero: unknown
}

// A Wish is the most that a viewer wants.
type Wish struct {
	RID  string // of simulcast; "", or one that is not there: the best
	Bits int64  // bit/s; 0: any
	Point
}

// marginUp is by how much a better rung has to fit: by 1/marginUp of its
// bitrate, so that a viewer does not go up and down with each estimate.
const marginUp = 8

// Pick returns the index of the best of rungs, the least first, that a viewer
// wishes, who gets current now; -1: nothing. Of an encoding that fits it gets all
// pictures; fewer a second are the last resort, within the least one. Where the
// encoding of the wish does not flow, the next one below takes its place, or
// else the least. Of no rungs it returns -1.
func Pick(rungs []Rung, w Wish, current int) int {
	top := len(rungs) - 1
	for top >= 0 && w.RID != "" && rungs[top].RID != w.RID {
		top--
	}
	if top < 0 {
		top = len(rungs) - 1
	}
	least := -1
	for i := top; i >= 0; i-- {
		r := &rungs[i]
		if !r.Active || r.Spatial > w.Spatial || r.Temporal > w.Temporal {
			continue
		}
		least = i
		if full(rungs, i, w) && fits(r, w, i > current && current >= 0) {
			return i
		}
	}
	if least >= 0 {
		return lastResort(rungs, w, least)
	}
	for i := range rungs { // above what was wished, if nothing else flows
		if rungs[i].Active {
			return i
		}
	}
	if current >= 0 {
		return current
	}
	return top
}

// full reports whether rung i has all the pictures that are wished.
func full(rungs []Rung, i int, w Wish) bool {
	return i+1 == len(rungs) || rungs[i+1].Encoding != rungs[i].Encoding || rungs[i+1].Spatial != rungs[i].Spatial || rungs[i+1].Temporal > w.Temporal
}

func fits(r *Rung, w Wish, up bool) bool {
	need := r.Bits
	if up {
		need += need / marginUp
	}
	return (r.Proven || !up) && (w.Bits == 0 || r.Bits > 0 && need <= w.Bits)
}

// lastResort returns the best rung with the encoding and the spatial layer of
// the least one.
func lastResort(rungs []Rung, w Wish, least int) int {
	best := least
	for i := least; i < len(rungs) && rungs[i].Encoding == rungs[least].Encoding && rungs[i].Spatial == rungs[least].Spatial; i++ {
		if rungs[i].Temporal <= w.Temporal && (w.Bits == 0 || rungs[i].Bits <= w.Bits) {
			best = i
		}
	}
	return best
}

// Wanted returns what to pass of the encoding of rung i, which was picked: where
// it has the most of the encoding, also layers that begin later.
func Wanted(rungs []Rung, i int, w Wish) Point {
	p := rungs[i].Point
	if full(rungs, i, w) {
		p.Temporal = w.Temporal
	}
	for _, r := range rungs[i:] {
		if r.Encoding == rungs[i].Encoding && r.Spatial > p.Spatial {
			return p
		}
	}
	p.Spatial = max(p.Spatial, w.Spatial)
	return p
}
