package place

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func nodes(count int) (list []peer.ID) {
	for i := range count {
		list = append(list, peer.ID(rune('a'+i)))
	}
	return list
}

// Once three quarters have answered, the others have as long again.
func TestPollWaitsForTheSlowAsLongAgain(t *testing.T) {
	p := Poll{Nodes: nodes(8)}
	if s := p.Start(start); len(s.Ask) != 8 || s.Done || !s.Due.Equal(start.Add(PollTime)) {
		t.Fatalf("%+v", s)
	}
	at := func(d time.Duration) time.Time { return start.Add(d) }
	p.Failed(p.Nodes[0])
	for i := range 5 {
		p.Answered(at(time.Duration(i)*20*ms), p.Nodes[i+1], true)
	}
	if s := p.Answered(at(100*ms), p.Nodes[6], true); s.Done || !s.Due.Equal(at(200*ms)) {
		t.Errorf("after three quarters: %+v", s)
	}
	if s := p.Tick(at(200 * ms)); !s.Done || p.Pending() != 1 {
		t.Errorf("the one that hangs is waited for: %+v", s)
	}
	p = Poll{Nodes: nodes(1)}
	p.Start(start)
	if s := p.Answered(at(ms), "a", true); !s.Done {
		t.Errorf("all have answered: %+v", s)
	}
}

// In a long list some are asked at the same time, and none after the time is up.
func TestPollOfManyAsksSomeAtOnce(t *testing.T) {
	p := Poll{Nodes: nodes(PollAtOnce + 3)}
	asked := p.Start(start).Ask
	if len(asked) != PollAtOnce {
		t.Fatalf("%d at once", len(asked))
	}
	asked = append(asked, p.Failed(asked[0]).Ask...)
	asked = append(asked, p.Answered(start, asked[1], false).Ask...)
	if !slices.Equal(asked, p.Nodes[:PollAtOnce+2]) {
		t.Errorf("%d are asked when two have been heard of", len(asked))
	}
	if s := p.Tick(start.Add(PollTime)); !s.Done || len(s.Ask) > 0 {
		t.Errorf("when the time is up: %+v", s)
	}
	if s := p.Answered(start.Add(PollTime), asked[3], true); !s.Done || len(s.Ask) > 0 {
		t.Errorf("after the time is up: %+v", s)
	}
	if s := (&Poll{}).Start(start); !s.Done {
		t.Errorf("of nobody: %+v", s)
	}
}
