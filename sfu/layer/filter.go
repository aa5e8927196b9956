package layer

// A Point is a set of layers: those up to a spatial and a temporal one.
type Point struct{ Spatial, Temporal uint8 }

// All is the Point of all layers.
var All = Point{Most, Most}

// A Filter decides which packets of scalable video one viewer gets. It goes down
// with the next picture, up to temporal layers where the stream says that they
// begin, and up to spatial ones with a picture that refers to none before. The
// zero value passes the lowest layers only: see [NewFilter].
type Filter struct {
	want, at  Point
	timestamp uint32 // of the picture that was seen last
	live      bool
	cut       bool // some of that picture was left out
}

// NewFilter makes a Filter that passes want, from the first packet on.
func NewFilter(want Point) Filter { return Filter{want: want, at: want} }

// Want makes f pass no more than want, as soon as that is safe.
func (f *Filter) Want(want Point) { f.want = want }

// Restart makes f expect the timestamps of another source.
func (f *Filter) Restart() { f.live = false }

// At returns what f passes now.
func (f *Filter) At() Point { return f.at }

// Waits reports whether f needs a picture that refers to none before, for a
// spatial layer that is wanted.
func (f *Filter) Waits(highest uint8) bool {
	return f.at.Spatial < min(f.want.Spatial, highest)
}

// Pass reports whether a packet is passed. Late packets, whose timestamp is
// before that of the last picture, change nothing.
func (f *Filter) Pass(i *Info, timestamp uint32) bool {
	if !i.Known {
		return true
	}
	if ahead := int32(timestamp - f.timestamp); ahead > 0 || !f.live {
		f.live, f.timestamp, f.cut = true, timestamp, false
		f.at = Point{min(f.at.Spatial, f.want.Spatial), min(f.at.Temporal, f.want.Temporal)}
	} else if ahead < 0 {
		return f.passes(i)
	}
	if i.Begin && !f.cut { // the rest of a late one may be gone
		f.raise(i)
	}
	pass := f.passes(i)
	f.cut = f.cut || !pass
	return pass
}

// raise goes up as far as i, the begin of a frame, allows.
func (f *Filter) raise(i *Info) {
	switch {
	case i.Key:
		f.at = f.want
	case i.Intra && i.Spatial == f.at.Spatial+1 && i.Spatial <= f.want.Spatial:
		f.at.Spatial = i.Spatial
	}
	if i.Spatial <= f.at.Spatial && i.UpTo >= i.Temporal && i.UpTo > f.at.Temporal {
		f.at.Temporal = min(i.UpTo, f.want.Temporal)
	}
}

func (f *Filter) passes(i *Info) bool {
	return i.Spatial <= f.at.Spatial && i.Temporal <= f.at.Temporal
}

// Last reports whether a packet with i is the last of its picture for a
// receiver of the spatial layers up to spatial.
func (i *Info) Last(spatial uint8) bool { return i.Known && i.End && i.Spatial == spatial }
