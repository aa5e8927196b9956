package lab

import (
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"weir/dht/dhttest/wire"
)

// A Place is a point on the map, in milliseconds of one-way delay; the last
// mile adds to every path from or to there.
type Place struct {
	X, Y   float64
	Access float64
	Region string
}

// A Geography places nodes in regions: cities around a few centres on a plane,
// on which distance is delay. It is a pure function of its parameters, so a
// node's place does not depend on other nodes.
type Geography struct {
	seed    uint64
	centres []Place
	scale   float64
}

const (
	regionSpread = 0.05 // share of the map's side: distance of nodes from their centre
	accessLeast  = 1.0  // ms
	accessMost   = 4.0
)

// NewGeography makes a map with that many regions, on which the mean round trip
// time between two nodes is mean.
func NewGeography(seed uint64, regions int, mean time.Duration) *Geography {
	rnd := rand.New(rand.NewPCG(seed, 0x6d61700a))
	g := &Geography{seed: seed, scale: 1}
	for i := range regions {
		// The best of several candidates, so that regions do not overlap.
		var best Place
		far := -1.0
		for range 8 {
			p := Place{X: rnd.Float64(), Y: rnd.Float64(), Region: "region-" + strconv.Itoa(i+1)}
			near := math.Inf(1)
			for _, c := range g.centres {
				near = min(near, math.Hypot(p.X-c.X, p.Y-c.Y))
			}
			if near > far {
				best, far = p, near
			}
		}
		g.centres = append(g.centres, best)
	}
	const sample = 256
	var distance, access float64
	for i := range sample {
		for j := range i {
			a, b := g.Place(i), g.Place(j)
			distance += math.Hypot(a.X-b.X, a.Y-b.Y)
			access += a.Access + b.Access
		}
	}
	pairs := float64(sample * (sample - 1) / 2)
	oneWay := float64(mean) / float64(time.Millisecond) / 2
	g.scale = max(0, oneWay-access/pairs) / (distance / pairs)
	return g
}

// Place is the place of node i. Regions are assigned to nodes in turn.
func (g *Geography) Place(i int) Place {
	rnd := rand.New(rand.NewPCG(g.seed, uint64(i)+1))
	c := g.centres[i%len(g.centres)]
	return Place{
		X:      g.scale * (c.X + regionSpread*rnd.NormFloat64()),
		Y:      g.scale * (c.Y + regionSpread*rnd.NormFloat64()),
		Access: accessLeast + (accessMost-accessLeast)*rnd.Float64(),
		Region: c.Region,
	}
}

// Centre is a well connected place in the middle of a region: rank 0 is the
// region nearest to all others, and so on.
func (g *Geography) Centre(rank int) Place {
	type remote struct {
		place Place
		sum   float64
	}
	var list []remote
	for _, c := range g.centres {
		r := remote{place: Place{X: g.scale * c.X, Y: g.scale * c.Y, Access: accessLeast, Region: c.Region}}
		for _, d := range g.centres {
			r.sum += math.Hypot(c.X-d.X, c.Y-d.Y)
		}
		list = append(list, r)
	}
	rank %= len(list)
	for i := range list { // a few: select the rank-th smallest
		below := 0
		for j := range list {
			if list[j].sum < list[i].sum || list[j].sum == list[i].sum && j < i {
				below++
			}
		}
		if below == rank {
			return list[i].place
		}
	}
	return list[0].place
}

// OneWay is the delay between two places.
func (a Place) OneWay(b Place) time.Duration {
	ms := math.Hypot(a.X-b.X, a.Y-b.Y) + a.Access + b.Access
	return time.Duration(ms * float64(time.Millisecond))
}

// at is a Place on a wire.
type at Place

func (a at) OneWay(to wire.Place) time.Duration { return Place(a).OneWay(Place(to.(at))) }
