package place

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	// PollTime is the time for all nodes to answer a [Poll], and PollAtOnce how
	// many are asked at the same time.
	PollTime   = time.Second
	PollAtOnce = 256
)

// A Poll asks each node of a list for its own record: it replaces a query where
// no node holds the records of others. Once three quarters have answered, the
// others have as long again as that took: they are far away, or hang.
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

// Answered takes in that a node has answered. Whether a record was found makes
// no difference: each node knows only its own.
func (p *Poll) Answered(now time.Time, _ peer.ID, _ bool) QueryStep {
	p.pending--
	if p.good++; p.late.IsZero() && 4*p.good >= 3*len(p.Nodes) {
		p.late = now.Add(max(now.Sub(p.began), GraceMost))
	}
	return p.step()
}

// Failed takes in that a node gave no valid answer.
func (p *Poll) Failed(peer.ID) QueryStep {
	p.pending--
	return p.step()
}

// FoundElsewhere changes nothing: a poll has no parallel query.
func (p *Poll) FoundElsewhere() QueryStep { return p.step() }

// Tick takes in that time has passed.
func (p *Poll) Tick(now time.Time) QueryStep {
	p.done = p.done || passed(now, p.late) || passed(now, p.deadline)
	return p.step()
}

// Pending is how many nodes were asked and have not answered.
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
