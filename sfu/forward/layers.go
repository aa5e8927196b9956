package forward

// A Layer is one way in which a video track can be sent to a viewer: a layer of
// simulcast, a spatial layer of scalable video with those below it, or a
// temporal layer with those below it.
type Layer struct {
	RID      string // of simulcast (RFC 8851), or a number where SSRCs make the layers; "": not simulcast
	Spatial  uint8  // the highest spatial layer (SVC)
	Temporal uint8  // the highest temporal layer
	Active   bool   // it is being received
	Bitrate  int64  // bit/s of RTP payload, with all layers below that it needs; 0: not measured yet
	Width    int    // px; 0: unknown
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
func (t *Track) Layers() []Layer {
	return []Layer{{Active: true}}
}

// Limit makes d send layers of at most bits bit/s of RTP payload, or the least
// one; 0: no limit. It may be called often and from any goroutine: what is sent
// changes at keyframes and at the safe points of the layers, and a better layer
// has to fit with a margin.
func (d *DownTrack) Limit(bits int64) { d.limit.Store(bits) }

// Choose makes d send no more than c, whatever its limit.
func (d *DownTrack) Choose(c Choice) { d.choice.Store(&c) }

// Sending returns the layer that d sends now; false: none yet.
func (d *DownTrack) Sending() (Layer, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Layer{Active: true}, d.source != nil
}
