package client

import "time"

// timeline determines when each frame of a Source is due. It is pure: times are
// since the start of sending (the caller's monotonic clock), and a due time
// never depends on the time of the call, so nothing drifts.
//
// Video frames are due at their place in the clip plus an offset that grows by
// the clip's length on each loop and changes on a jump. Audio packets always
// follow each other without gap or overlap, because each gap is audible: on a
// loop or jump only their content changes, to the packet nearest to the video's
// place in the clip, which is off by at most half a packet and does not add up
// over jumps.
//
// It belongs to one loop and has no lock.
type timeline struct {
	src     *Source
	cursors []cursor
}

// cursor is the position of one track.
type cursor struct {
	next   int           // index of the next frame; len(frames) once the clip has ended for good
	due    time.Duration // when that frame is due
	offset time.Duration // due time minus place in the clip
	end    time.Duration // end of the last frame sent; audio continues there
	sent   bool          // a frame has been sent
	video  bool
}

func newTimeline(src *Source) *timeline {
	t := &timeline{src: src, cursors: make([]cursor, len(src.tracks))}
	for i := range t.cursors {
		c := &t.cursors[i]
		c.video = src.tracks[i].video()
		c.due = src.tracks[i].frames[0].at
	}
	return t
}

// peek returns the frame due first; on a tie that of video, which takes longer
// to decode. ok is false if the clip has ended.
func (t *timeline) peek() (track int, f frame, due time.Duration, ok bool) {
	for i, c := range t.cursors {
		if c.next == len(t.src.tracks[i].frames) {
			continue
		}
		if !ok || c.due < due || c.due == due && c.video {
			track, due, ok = i, c.due, true
		}
	}
	if !ok {
		return 0, frame{}, 0, false
	}
	return track, t.src.tracks[track].frames[t.cursors[track].next], due, true
}

// advance moves past the frame that peek returned for track.
func (t *timeline) advance(track int) {
	c, frames := &t.cursors[track], t.src.tracks[track].frames
	c.end, c.sent = c.due+frames[c.next].last, true
	c.next++
	if c.next < len(frames) && frames[c.next].at < t.src.length {
		if c.video {
			c.due = c.offset + frames[c.next].at
		} else {
			c.due = c.end
		}
		return
	}
	if t.src.Once {
		c.next = len(frames)
		return
	}
	c.offset += t.src.length
	if c.video {
		c.next, c.due = 0, c.offset
		return
	}
	t.place(track, c.end)
}

// place selects the audio for due: the packet that begins nearest to that place
// in the clip.
func (t *timeline) place(track int, due time.Duration) {
	c, frames := &t.cursors[track], t.src.tracks[track].frames
	c.due, c.next = due, 0
	best := time.Duration(1<<63 - 1)
	for i, f := range frames {
		if f.at >= t.src.length {
			break
		}
		if d := (c.offset + f.at - due).Abs(); d < best {
			c.next, best = i, d
		}
	}
	// Where the clip has no audio at that place, wait for the time of the next
	// packet, if necessary in the next loop.
	f := frames[c.next]
	switch gap := c.offset + f.at - due; {
	case gap > f.last/2:
		c.due += gap
	case gap < -f.last/2 && t.src.Once:
		c.next = len(frames)
	case gap < -f.last/2:
		c.offset += t.src.length
		t.place(track, due)
	}
}

// delay shifts all future frames by d: the sender was delayed, and sends late
// instead of in a burst.
func (t *timeline) delay(d time.Duration) {
	for i := range t.cursors {
		c := &t.cursors[i]
		c.due += d
		c.offset += d
		c.end += d
	}
}

// jump makes the next keyframe of the clip due at now, and audio with it;
// frames due before now must have been sent. It reports whether there is one:
// there is none without video, or if a clip played once has none left.
func (t *timeline) jump(now time.Duration) bool {
	v := -1
	for i := range t.cursors {
		if t.cursors[i].video {
			v = i
		}
	}
	if v < 0 {
		return false
	}
	frames := t.src.tracks[v].frames
	key := -1
	for i := t.cursors[v].next; i < len(frames); i++ {
		if frames[i].key {
			key = i
			break
		}
	}
	if key < 0 {
		if t.src.Once {
			return false
		}
		key = 0
	}
	offset := now - frames[key].at
	for i := range t.cursors {
		c := &t.cursors[i]
		c.offset = offset
		if c.video {
			c.next, c.due = key, now
			continue
		}
		if c.next == len(t.src.tracks[i].frames) {
			continue // played once, and over
		}
		due := max(c.end, now)
		if c.sent && c.due == c.end {
			due = c.end // aligned: no gap
		}
		if due-offset >= t.src.length && !t.src.Once {
			c.offset += t.src.length
		}
		t.place(i, due)
	}
	return true
}
