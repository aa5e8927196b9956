package rtc

import (
	"slices"

	"weir/sfu/forward"
)

// Layers returns the layers of the tracks in a viewer's video sections, by the
// index of the section in its offer, the least first.
func (t *Client) Layers() map[int][]forward.Layer {
	all := map[int][]forward.Layer{}
	for _, o := range t.outs {
		if o.Track.Codec.Kind() == forward.Video {
			all[o.Section] = o.Track.Layers()
		}
	}
	return all
}

// Sending returns the layer of the first video that is sent now; false: none yet.
func (t *Client) Sending() (forward.Layer, bool) {
	for _, o := range t.outs {
		if o.Track.Codec.Kind() == forward.Video {
			return o.DownTrack.Sending()
		}
	}
	return forward.Layer{}, false
}

// Choose limits the layers that are sent in a video section.
func (t *Client) Choose(section int, c forward.Choice) {
	for _, o := range t.outs {
		if o.Section == section && o.Track.Codec.Kind() == forward.Video {
			o.DownTrack.Choose(c)
		}
	}
}

// Paused reports whether a kind of media is paused; ok is false if the viewer
// gets none of it at all.
func (t *Client) Paused(kind forward.Kind) (paused, ok bool) {
	t.pausing.Lock()
	defer t.pausing.Unlock()
	return t.paused[kind], slices.ContainsFunc(t.outs, func(o *LocalTrack) bool { return o.Track.Codec.Kind() == kind })
}

// Pause sends nothing of a kind any more, or goes on: video with a keyframe,
// which is requested.
func (t *Client) Pause(kind forward.Kind, paused bool) {
	t.pausing.Lock()
	defer t.pausing.Unlock()
	t.paused[kind] = paused
	t.send()
}

// begin starts media once the connection is up.
func (t *Client) begin() {
	t.pausing.Lock()
	t.begun = true
	t.send()
	t.pausing.Unlock()
	if t.in != nil {
		t.in.Reachable()
	}
}

// send has those tracks sent that are to be now. Called with pausing held.
func (t *Client) send() {
	for _, o := range t.outs {
		if t.begun && !t.stopped && !t.paused[o.Track.Codec.Kind()] {
			o.Track.Add(o.DownTrack)
		} else {
			o.Track.Remove(o.DownTrack)
		}
	}
}
