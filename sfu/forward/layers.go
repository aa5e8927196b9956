package forward

import (
	"time"

	"weir/sfu/layer"
)

// A Layer is one way in which a video track can be sent to a viewer: a layer of
// simulcast, a spatial layer of scalable video with those below it, or a
// temporal layer with those below it.
type Layer struct {
	RID      string // of simulcast (RFC 8851), or a number where SSRCs make the layers; "": not simulcast
	Spatial  uint8  // the highest spatial layer (SVC)
	Temporal uint8  // the highest temporal layer
	Active   bool   // it is being received
	Bitrate  int64  // bit/s of RTP payload, with all layers below that it needs; 0: not measured yet
	Width    int    // px, of the encoding; 0: unknown
	Height   int
}

// A Choice is the most that a viewer wants of a track. The zero value is
// everything.
type Choice struct {
	RID      string // the layer of simulcast; "": the best
	Spatial  *uint8 // the highest spatial layer; nil: all
	Temporal *uint8 // the highest temporal layer; nil: all
}

// Layers returns the layers of the track, the least first. A track that is not
// layered has one.
func (t *Track) Layers() (all []Layer) {
	rungs, _ := t.rungs(time.Now())
	for i := range rungs {
		all = append(all, layerOf(&rungs[i]))
	}
	return all
}

func layerOf(r *layer.Rung) Layer {
	return Layer{
		RID: r.RID, Spatial: r.Spatial, Temporal: r.Temporal, Active: r.Active, Bitrate: r.Bits,
		Width: int(r.Size.Width), Height: int(r.Size.Height),
	}
}

// Limit makes d send layers of at most bits bit/s of RTP payload, or the least
// one; 0: no limit. It may be called often and from any goroutine: it counts
// from the next [Track.Review] on, what is sent changes at keyframes and at the
// safe points of the layers, and a better layer has to fit with a margin.
func (d *DownTrack) Limit(bits int64) { d.limit.Store(bits) }

// Choose makes d send no more than c, whatever its limit, as Limit does.
func (d *DownTrack) Choose(c Choice) { d.choice.Store(&c) }

// Chosen returns what was chosen last.
func (d *DownTrack) Chosen() Choice {
	if c := d.choice.Load(); c != nil {
		return *c
	}
	return Choice{}
}

// wish returns what d may get.
func (d *DownTrack) wish() layer.Wish {
	w := layer.Wish{Point: layer.All, Bits: d.limit.Load()}
	if d.Relay {
		return layer.Wish{Point: layer.All}
	}
	if c := d.choice.Load(); c != nil {
		w.RID = c.RID
		if c.Spatial != nil {
			w.Spatial = *c.Spatial
		}
		if c.Temporal != nil {
			w.Temporal = *c.Temporal
		}
	}
	return w
}

// at returns the encoding that d sends; nil: none yet. Called with mu held.
func (d *DownTrack) at() *Track {
	if d.source == nil {
		return nil
	}
	return d.source.up.track
}

// serving returns the encoding that d sends, or else is to send, or else its
// track.
func (d *DownTrack) serving() *Track {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch at := d.at(); {
	case at != nil:
		return at
	case d.to != nil:
		return d.to
	}
	return d.Track
}

// Sending returns the layer that d sends now; false: none yet.
func (d *DownTrack) Sending() (Layer, bool) {
	rungs, encodings := d.Track.rungs(time.Now())
	d.mu.Lock()
	defer d.mu.Unlock()
	at := d.filter.At()
	i := lastIndex(rungs, func(r *layer.Rung) bool {
		return encodings[r.Encoding] == d.at() && r.Spatial <= at.Spatial && r.Temporal <= at.Temporal
	})
	if i < 0 {
		return Layer{}, false
	}
	return layerOf(&rungs[i]), true
}
