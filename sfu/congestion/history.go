package congestion

import (
	"sync"
	"time"
)

const (
	// historyStart and historyMost are the numbers of packets that are
	// remembered: as many as were sent in historyTime, within these bounds. The
	// most is 1.2 s of 40 Mbit/s.
	historyStart = 128
	historyMost  = 4096
	historyTime  = time.Second
)

// A fate is what is known of a packet.
type fate uint8

const (
	unsent fate = iota
	pending
	lost // reported as missing; it may come yet
	received
)

// A packet is one that was sent.
type packet struct {
	sent  time.Duration
	size  uint16 // bytes of RTP
	fate  fate
	probe uint8 // the probe that it is part of; 0: none
}

// An ack is what feedback says of one packet.
type ack struct {
	packet
	arrived time.Duration // by the far end's clock, if received
	revoked bool          // it was reported as lost before
}

// A history numbers the packets of a connection, and remembers the last ones.
// The zero value is ready.
type history struct {
	mu    sync.Mutex
	next  uint64 // the lower 16 bits are the number of the next packet
	slots []packet
	bytes int64 // sent in all
	probe uint8 // of packets that are sent now
}

// add takes a packet, and returns its number.
func (h *history) add(now time.Duration, size int) uint16 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.slots == nil {
		h.slots = make([]packet, historyStart)
	}
	if old := h.slot(h.next); old.fate == pending && now-old.sent < historyTime && len(h.slots) < historyMost {
		h.grow()
	}
	*h.slot(h.next) = packet{sent: now, size: uint16(min(size, 1<<16-1)), fate: pending, probe: h.probe}
	h.bytes += int64(size)
	h.next++
	return uint16(h.next - 1)
}

func (h *history) slot(index uint64) *packet { return &h.slots[index%uint64(len(h.slots))] }

// grow doubles the slots. Called with mu held.
func (h *history) grow() {
	old := h.slots
	h.slots = make([]packet, 2*len(old))
	for i := range min(h.next, uint64(len(old))) {
		index := h.next - 1 - i
		*h.slot(index) = old[index%uint64(len(old))]
	}
}

// mark makes the packets of that number of probe id from now on; 0: of none.
func (h *history) mark(id uint8) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.probe = id
}

// take appends to acks what the n packets from number first on have become: they
// have come at arrived, or are missing. What is known already, or not
// remembered, is left out.
func (h *history) take(acks []ack, first uint16, n int, came bool, arrived time.Duration) []ack {
	if len(h.slots) == 0 {
		return acks
	}
	// A number is one of the last 1<<15 that were sent, or of none.
	behind := int(uint16(h.next - 1 - uint64(first)))
	if behind >= 1<<15 {
		return acks
	}
	n = min(n, behind+1)
	if far := behind - len(h.slots) + 1; far > 0 {
		behind, n = behind-far, n-far
	}
	for ; n > 0; n, behind = n-1, behind-1 {
		if uint64(behind) >= h.next {
			continue
		}
		p := h.slot(h.next - 1 - uint64(behind))
		switch {
		case came && (p.fate == pending || p.fate == lost):
			acks = append(acks, ack{packet: *p, arrived: arrived, revoked: p.fate == lost})
			p.fate = received
			acks[len(acks)-1].fate = received
		case !came && p.fate == pending:
			p.fate = lost
			acks = append(acks, ack{packet: *p})
		}
	}
	return acks
}

// waiting returns how long the oldest of the packets after the last that
// feedback has named has been under way; 0: there is none. Those before a
// silence do not count: of the last ones, if they are lost, no feedback tells.
func (h *history) waiting(now time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	oldest := now
	for i := range min(h.next, uint64(len(h.slots))) {
		p := h.slot(h.next - 1 - i)
		if p.fate != pending || oldest-p.sent > silence {
			break
		}
		oldest = p.sent
	}
	return now - oldest
}

// total returns the bytes sent in all.
func (h *history) total() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytes
}
