package congestion

import (
	"encoding/binary"
	"errors"
	"time"
)

// ErrFeedback means that a message is not transport-wide feedback.
var ErrFeedback = errors.New("malformed transport-wide feedback")

// Sizes and units of the message (draft-holmer-rmcat-transport-wide-cc-
// extensions-01, section 3.1).
const (
	feedbackHeader = 20 // bytes up to the first chunk, with that of RTCP
	tick           = 250 * time.Microsecond
	reference      = 64 * time.Millisecond
)

// Symbols of packets.
const (
	notReceived = iota
	smallDelta
	largeDelta
	// 3 is reserved: it came, nobody knows when
)

// IsFeedback reports whether b begins with the header of transport-wide
// feedback (RTCP payload type 205, format 15).
func IsFeedback(b []byte) bool { return len(b) >= 4 && b[0]&0x1f == 15 && b[1] == 205 }

// A statuses is what a message says of the packets first and following, n of
// them: that they are missing, or of one, when it has come.
type statuses struct {
	first   uint16
	n       int
	came    bool
	arrived time.Duration // after the message's reference time, in steps of tick
}

// read calls each for the packets that message b is about, in their order. Runs
// of missing packets come as one, so that it takes no more steps than b has
// bits. The reference time is in units of 64 ms, of which it is the lower 24
// bits.
func read(b []byte, begin func(reference uint32), each func(statuses)) error {
	if !IsFeedback(b) || len(b) < feedbackHeader {
		return ErrFeedback
	}
	next, left := binary.BigEndian.Uint16(b[12:]), int(binary.BigEndian.Uint16(b[14:]))
	deltas, err := deltasOf(b[feedbackHeader:], left)
	if err != nil {
		return err
	}
	begin(uint32(b[16])<<16 | uint32(b[17])<<8 | uint32(b[18]))
	var at time.Duration
	for chunks := b[feedbackHeader:]; left > 0; chunks = chunks[2:] {
		c := chunkOf(chunks)
		for i := 0; i < c.n && left > 0; i++ {
			s, known := statuses{first: next, n: 1}, true
			switch symbol := c.symbol(i); symbol {
			case smallDelta, largeDelta:
				if len(deltas) < symbol {
					return ErrFeedback
				}
				if symbol == smallDelta {
					at += tick * time.Duration(deltas[0])
				} else {
					at += tick * time.Duration(int16(binary.BigEndian.Uint16(deltas)))
				}
				deltas, s.came, s.arrived = deltas[symbol:], true, at
			default:
				if c.run {
					s.n = min(c.n, left)
					i = c.n
				}
				known = symbol == notReceived
			}
			if known {
				each(s)
			}
			next, left = next+uint16(s.n), left-s.n
		}
	}
	return nil
}

// deltasOf returns what follows the chunks of n packets.
func deltasOf(b []byte, n int) ([]byte, error) {
	for n > 0 {
		if len(b) < 2 {
			return nil, ErrFeedback
		}
		c := chunkOf(b)
		if c.n == 0 {
			return nil, ErrFeedback // it would add nothing for ever
		}
		n, b = n-c.n, b[2:]
	}
	return b, nil
}

// A chunk has the symbols of n packets.
type chunk struct {
	bits uint16
	n    int
	run  bool // all are the same
}

func chunkOf(b []byte) chunk {
	c := chunk{bits: binary.BigEndian.Uint16(b)}
	switch {
	case c.bits>>15 == 0:
		c.n, c.run = int(c.bits&0x1fff), true
	case c.bits>>14&1 == 0:
		c.n = 14
	default:
		c.n = 7
	}
	return c
}

// symbol returns the symbol of the chunk's packet i.
func (c chunk) symbol(i int) int {
	switch {
	case c.run:
		return int(c.bits >> 13 & 3)
	case c.n == 14:
		return int(c.bits >> (13 - i) & 1)
	}
	return int(c.bits >> (12 - 2*i) & 3)
}
