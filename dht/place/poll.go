package place

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// PollTime is how long all have to answer a [Poll], and PollAtOnce how many
	// are asked at the same time.
	PollTime   = time.Second
	PollAtOnce = 256
)

// A Poll asks each node of a list for its own record: what a query is where
// nobody holds those of others. Once three quarters have answered, the others
// have as long again as that took: they are far away, or hang.
type Poll struct {
	Nodes []peer.ID

	began    time.Time
	asked    int
	pending  int
	good     int
	deadline time.Time
	late     time.Time // zero: too few have answered
	done     bool
}

// Start asks as many as are asked at once.
func (p *Poll) Start(now time.Time) QueryStep {
	p.began, p.deadline = now, now.Add(PollTime)
	return p.step()
}

// Answered takes in that a node has answered. What was found makes no
// difference: each knows of itself only.
func (p *Poll) Answered(now time.Time, _ peer.ID, _ bool) QueryStep {
	p.pending--
	if p.good++; p.late.IsZero() && 4*p.good >= 3*len(p.Nodes) {
		p.late = now.Add(max(now.Sub(p.began), GraceMost))
	}
	return p.step()
}

// Failed takes in that a node gave no answer that counts.
func (p *Poll) Failed(peer.ID) QueryStep {
	p.pending--
	return p.step()
}

// FoundElsewhere changes nothing: there is no other query.
func (p *Poll) FoundElsewhere() QueryStep { return p.step() }

// Tick takes in that time has passed.
func (p *Poll) Tick(now time.Time) QueryStep {
	p.done = p.done || passed(now, p.late) || passed(now, p.deadline)
	return p.step()
}

// Pending is how many nodes were asked that have not answered.
func (p *Poll) Pending() int { return p.pending }

func (p *Poll) step() (s QueryStep) {
	for !p.done && p.asked < len(p.Nodes) && p.pending < PollAtOnce {
		s.Ask = append(s.Ask, p.Nodes[p.asked])
		p.asked++
		p.pending++
	}
	s.Done = p.done || p.pending == 0
	s.Due = earliest(p.deadline, p.late)
	return s
}
