package layer

// A structure is a template dependency structure of a dependency descriptor
// (AV1 RTP specification, appendix A).
type structure struct {
	offset    uint8
	targets   int
	chains    int
	templates []template
	layersOf  []Point // of each decode target
	sizes     []Size  // of each spatial layer; nil: not given
}

type template struct {
	Point
	dti  []uint8 // for each decode target
	diff []uint8
}

// Decode target indications.
const (
	notPresent = 0
	switching  = 2
)

// Bounds of the specification.
const (
	maxTemplates = 64
	maxTargets   = 32
)

// bits reads bits, the highest first. Past the end it reads zeros and fails.
type bits struct {
	b      []byte
	at     int
	failed bool
}

func (r *bits) read(n int) (v uint32) {
	if r.at+n > 8*len(r.b) {
		r.failed = true
		return 0
	}
	for range n {
		v = v<<1 | uint32(r.b[r.at>>3]>>(7-r.at&7)&1)
		r.at++
	}
	return v
}

func (r *bits) flag() bool { return r.read(1) == 1 }

// nonSymmetric reads a value below n (section A.8.1 of the specification).
func (r *bits) nonSymmetric(n uint32) uint32 {
	w := 0
	for x := n; x != 0; x >>= 1 {
		w++
	}
	m := uint32(1)<<w - n
	v := r.read(w - 1)
	if v < m {
		return v
	}
	return v<<1 - m + r.read(1)
}

// descriptor reads a dependency descriptor. It takes over the structure that is
// attached to it.
func (p *Parser) descriptor(b []byte) (i Info, ok bool) {
	r := bits{b: b}
	i.Begin, i.End = r.flag(), r.flag()
	id := uint8(r.read(6))
	i.Number.Frame, i.Number.HasFrame = uint16(r.read(16)), true
	if r.failed {
		return i, false
	}
	s := p.structure
	var active, ownTargets, ownDiffs bool
	attached := false
	if len(b) > 3 {
		attached, active, ownTargets, ownDiffs = r.flag(), r.flag(), r.flag(), r.flag()
		r.flag() // custom chains
		if attached {
			if s = r.structure(); s == nil {
				return i, false
			}
			p.structure = s
		}
	}
	if s == nil || int(id-s.offset)&0x3f >= len(s.templates) {
		return i, false
	}
	if active {
		r.read(s.targets)
	}
	t := s.templates[(id-s.offset)&0x3f]
	i.Spatial, i.Temporal = t.Spatial, t.Temporal
	dti, diffs := t.dti, t.diff
	if ownTargets {
		dti = make([]uint8, s.targets)
		for n := range dti {
			dti[n] = uint8(r.read(2))
		}
	}
	if ownDiffs {
		diffs = nil
		for n := r.read(2); n != 0 && len(diffs) < maxTemplates; n = r.read(2) {
			diffs = append(diffs, uint8(min(r.read(4*int(n)), 254))+1)
		}
	}
	if r.failed {
		return Info{}, false
	}
	i.Known = true
	// A frame's number is one above that of the frame before it: what is fewer
	// frames back than there are spatial layers below is of the same picture.
	i.Intra = true
	for _, d := range diffs {
		i.Intra = i.Intra && d <= t.Spatial
	}
	i.Key = attached && len(diffs) == 0 && t.Spatial == 0
	for n, d := range dti {
		if d == switching && s.layersOf[n].Spatial == t.Spatial {
			i.UpTo = max(i.UpTo, s.layersOf[n].Temporal)
		}
	}
	if i.Key {
		i.UpTo = Most
	}
	if int(t.Spatial) < len(s.sizes) && i.Begin && i.Intra {
		i.Size, i.Sized = s.sizes[t.Spatial], true
	}
	return i, true
}

// structure reads a template dependency structure; nil: it is malformed.
func (r *bits) structure() *structure {
	s := &structure{offset: uint8(r.read(6)), targets: int(r.read(5)) + 1}
	if !r.layers(s) {
		return nil
	}
	for n := range s.templates {
		t := &s.templates[n]
		t.dti = make([]uint8, s.targets)
		for k := range t.dti {
			t.dti[k] = uint8(r.read(2))
		}
	}
	for n := range s.templates {
		t := &s.templates[n]
		for r.flag() {
			t.diff = append(t.diff, uint8(r.read(4))+1)
		}
	}
	s.chains = int(r.nonSymmetric(uint32(s.targets + 1)))
	if s.chains > 0 {
		for range s.targets {
			r.nonSymmetric(uint32(s.chains))
		}
		for range s.templates {
			r.read(4 * s.chains)
		}
	}
	if r.flag() {
		for range s.templates[len(s.templates)-1].Spatial + 1 {
			s.sizes = append(s.sizes, Size{uint16(r.read(16)) + 1, uint16(r.read(16)) + 1})
		}
	}
	if r.failed {
		return nil
	}
	s.reach()
	return s
}

// layers reads the layers of the templates, which are in the order of layers.
func (r *bits) layers(s *structure) bool {
	var at Point
	for !r.failed && len(s.templates) < maxTemplates {
		s.templates = append(s.templates, template{Point: at})
		switch r.read(2) {
		case 1:
			at.Temporal++
		case 2:
			at.Temporal, at.Spatial = 0, at.Spatial+1
		case 3:
			return !r.failed
		}
		if at.Temporal > Most || at.Spatial > Most {
			return false
		}
	}
	return false
}

// reach sets the highest layers of each decode target.
func (s *structure) reach() {
	s.layersOf = make([]Point, s.targets)
	for n := range s.layersOf {
		for _, t := range s.templates {
			if t.dti[n] != notPresent {
				s.layersOf[n] = Point{max(s.layersOf[n].Spatial, t.Spatial), max(s.layersOf[n].Temporal, t.Temporal)}
			}
		}
	}
}
