package forward

import "time"

// Pace spreads what exceeds a small frame at bits bit/s; 0: not at all. It delays
// packets by 200 ms at most. Any goroutine may call it.
func (d *DownTrack) Pace(bits int64) { d.pace.Set(bits) }

// spread makes the DownTracks that should not get batch at once catch up with
// it, part by part. Called with mu held.
func (t *Track) spread(batch []kept, now time.Time) {
	if len(batch) == 0 || !t.video() {
		return
	}
	size, ordered := 0, true
	for i := range batch {
		size += len(batch[i].data)
		ordered = ordered && batch[i].position > t.passed
		t.passed = max(t.passed, batch[i].position)
	}
	if !ordered {
		return // what is late would be left behind, and what was sent would be again
	}
	var held []*DownTrack
	for _, d := range t.downs {
		if !d.Relay && d.pace.Holds(size, now) {
			held = append(held, d)
		}
	}
	if held == nil {
		return
	}
	live := make([]*DownTrack, 0, len(t.downs)-len(held))
	for _, d := range t.downs {
		if len(held) == 0 || d != held[0] {
			live = append(live, d)
			continue
		}
		held = held[1:]
		t.joining = append(t.joining, &joiner{DownTrack: d, next: batch[0].position, since: now, due: now, paced: true})
	}
	t.downs = live
}
