package sim

import "time"

// epoch is the start of virtual time.
var epoch = time.Unix(1_800_000_000, 0)

// An engine runs events in the order of virtual time, and those of one time in
// the order scheduled.
type engine struct {
	now   time.Duration // since epoch
	order uint64
	heap  []event
}

type event struct {
	at    time.Duration
	order uint64
	do    func()
}

// clock is the virtual time as a time.Time, for other packages.
func (e *engine) clock() time.Time { return epoch.Add(e.now) }

// after schedules do for d from now; a negative d means now.
func (e *engine) after(d time.Duration, do func()) { e.at(e.now+max(d, 0), do) }

func (e *engine) at(t time.Duration, do func()) {
	e.order++
	e.heap = append(e.heap, event{max(t, e.now), e.order, do})
	h := e.heap
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(&h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

// run runs the events due until then, and sets the clock to it.
func (e *engine) run(until time.Duration) {
	for len(e.heap) > 0 && e.heap[0].at <= until {
		next := e.pop()
		e.now = next.at
		next.do()
	}
	e.now = until
}

func (e *engine) pop() event {
	h := e.heap
	top, last := h[0], len(h)-1
	h[0] = h[last]
	h[last] = event{}
	h = h[:last]
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < last && h[down].before(&h[least]) {
				least = down
			}
		}
		if least == i {
			break
		}
		h[i], h[least] = h[least], h[i]
		i = least
	}
	e.heap = h
	return top
}

func (a *event) before(b *event) bool {
	return a.at < b.at || a.at == b.at && a.order < b.order
}
