package sfu

import (
	"net/netip"
	"sync"
	"testing"

	"weir/capacity/ledger"
	"weir/sfu/client"
)

// A thief takes every 20th packet of video when it first comes.
type thief struct {
	mu     sync.Mutex
	media  uint8 // payload type that comes first
	stolen map[uint16]bool
	again  int // packets of another payload type: retransmissions
}

func (s *thief) at(c *Config) {
	s.stolen = map[uint16]bool{}
	c.Socket.Lose = func(d []byte, _ netip.AddrPort) bool {
		if len(d) < 400 || d[0] < 128 || d[0] > 191 { // audio's are shorter
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.media == 0 {
			s.media = d[1] & 0x7f
		}
		seq := uint16(d[2])<<8 | uint16(d[3])
		switch {
		case d[1]&0x7f != s.media:
			s.again++
		case seq%20 == 0 && !s.stolen[seq]:
			s.stolen[seq] = true
			return true
		}
		return false
	}
}

// A packet lost on the way from the publisher, or to another node, is requested
// there once, however many viewers miss it, comes as a retransmission (RFC 4588),
// and goes to all of them.
func TestLossIsRequestedOnceForAll(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	var up, link thief
	a, b := m.add(ledger.Limits{}, up.at), m.add(ledger.Limits{}, link.at)
	a.publish("demo")
	viewers := []*client.Viewer{a.watch("demo"), a.watch("demo"), a.watch("demo"), b.watch("demo"), b.watch("demo")}
	for _, v := range viewers {
		flows(t, v, 50)
	}
	for _, v := range viewers {
		eventually(t, "nothing is missing but what was just lost", func() bool { return v.Stats().Lost <= 1 })
	}
	up.mu.Lock()
	before := int64(len(up.stolen))
	up.mu.Unlock()
	for name, c := range map[string]struct {
		*thief
		requested int64
	}{"of the publisher": {&up, a.engine.Feedback().RepairsOut}, "over the link": {&link, b.engine.Feedback().RepairsOut}} {
		c.mu.Lock()
		lost, again := int64(len(c.stolen)), int64(c.again)
		c.mu.Unlock()
		// Over the link, what the node at the other end has not yet is missed too.
		if most := 2 * (lost + before); lost < 5 || c.requested < lost-1 || c.requested > most {
			t.Errorf("%d packets were lost, and %d requested %s", lost, c.requested, name)
		}
		if again < lost-2 || again > 2*lost {
			t.Errorf("%d packets were lost, and %d came again %s", lost, again, name)
		}
	}
}
