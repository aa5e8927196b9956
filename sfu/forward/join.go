package forward

import (
	"slices"
	"time"

	"weir/sfu/congestion"
)

// A viewer that joins begins with the newest group of pictures that the ring
// has, so that it does not wait for the encoder: a keyframe, and all that has
// come since. A group that is too old or too big is not used: the viewer would
// be behind for too long.
const (
	// groupTime is how old the group's keyframe may be.
	groupTime = 2 * time.Second
	// groupBytes bounds the group, in bytes of payload.
	groupBytes = 1 << 20
	// burstBytes and burstPause are the pace at which one viewer catches up,
	// 131 Mbit/s: half of what a socket buffers by default on Linux, and so much
	// faster than video that 1 MiB takes 64 ms.
	burstBytes = 32 << 10
	burstPause = 2 * time.Millisecond
	// passBytes bounds the bursts of one pass to all viewers that catch up: for
	// so long the others wait, less than a millisecond.
	passBytes = 256 << 10
	// catchUpTime is how long a viewer may take to catch up, where too many do.
	// Past it, it waits for a keyframe, which is requested.
	catchUpTime = 500 * time.Millisecond
)

// A joiner is a DownTrack that catches up: with the group that it begins with,
// or, paced, with what was too much at once.
type joiner struct {
	*DownTrack
	next  uint64    // position to go on from
	since time.Time // when it was added
	due   time.Time // when it gets its next burst
	paced bool
}

// A burst is what a joiner gets in one pass.
type burst struct {
	to      *DownTrack
	packets []kept
	late    bool // it takes too long: it has to wait for a keyframe
}

// catchUp makes d begin with the newest group in the ring, and reports false if
// none is usable. Called with mu held.
func (t *Track) catchUp(d *DownTrack, now time.Time) bool {
	if t.up == nil || !t.video() || d.Relay {
		return false
	}
	first, ok := t.ring.group(t.up, now)
	if ok {
		t.joining = append(t.joining, &joiner{DownTrack: d, next: first, since: now, due: now})
	}
	return ok
}

// live makes d one of those that get what is new. Called with mu held.
func (t *Track) live(d *DownTrack) { t.downs = append(slices.Clone(t.downs), d) }

// settleJoiners makes all that catch up go on with what is new: their group is
// of a source that has been replaced. Called with mu held.
func (t *Track) settleJoiners() {
	for _, j := range t.joining {
		t.live(j.DownTrack)
	}
	t.joining = nil
}

// has reports whether d was added. Called with mu held.
func (t *Track) has(d *DownTrack) bool {
	return slices.Contains(t.downs, d) || slices.ContainsFunc(t.joining, func(j *joiner) bool { return j.DownTrack == d })
}

// drop removes d. Called with mu held.
func (t *Track) drop(d *DownTrack) {
	t.downs = slices.DeleteFunc(slices.Clone(t.downs), func(o *DownTrack) bool { return o == d })
	t.joining = slices.DeleteFunc(t.joining, func(j *joiner) bool { return j.DownTrack == d })
}

// bursts returns what the joiners get now, and makes those that have caught up
// live: what comes from now on they get as all others do. Called with mu held.
func (t *Track) bursts(now time.Time) (all []burst) {
	room := passBytes
	t.joining = slices.DeleteFunc(t.joining, func(j *joiner) (done bool) {
		if room <= 0 || now.Before(j.due) {
			return false
		}
		size, pause := burstBytes, burstPause
		late := now.Sub(j.since) > catchUpTime
		if j.paced {
			size, pause, late = j.pace.Part(now.Sub(j.since), now), congestion.PacePause, false
		}
		b := burst{to: j.DownTrack, late: late}
		if done = b.late; !b.late {
			b.packets, done = t.ring.from(j.next, size)
		}
		for i := range b.packets {
			room -= len(b.packets[i].data)
			j.next = b.packets[i].position + 1
		}
		j.due = now.Add(pause)
		if done {
			t.live(j.DownTrack)
		}
		all = append(all, b)
		return done
	})
	return all
}

// nextBurst returns how long it is until a joiner is due; false: there is none.
// Called with mu held.
func (t *Track) nextBurst(now time.Time) (time.Duration, bool) {
	if len(t.joining) == 0 {
		return 0, false
	}
	next := slices.MinFunc(t.joining, func(a, b *joiner) int { return a.due.Compare(b.due) })
	return next.due.Sub(now), true
}

// await waits for packets, a joiner that is due, or a change of the DownTracks.
// Called with mu held.
func (t *Track) await() {
	wait, ok := t.nextBurst(time.Now())
	switch {
	case !ok:
		t.changed.Wait()
	case wait > 0:
		timer := time.AfterFunc(wait, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.changed.Broadcast()
		})
		t.changed.Wait()
		timer.Stop()
	}
}

// due reports whether a joiner is. Called with mu held.
func (t *Track) due() bool {
	wait, ok := t.nextBurst(time.Now())
	return ok && wait <= 0
}
