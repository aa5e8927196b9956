package load

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// The stream: H264 of 2.5 Mbit/s at 30 frames/s, a keyframe every two seconds
// and when one is asked for, and Opus of 50 packets/s.
const (
	FrameRate    = 30
	AudioRate    = 50
	BitRate      = 2_500_000
	keyEvery     = 2 * FrameRate
	keyWeight    = 5    // a keyframe is so many times as large as another frame
	payloadSize  = 1160 // of a video packet, in bytes, at most
	audioSize    = 80
	videoClock   = 90_000
	audioClock   = 48_000
	videoPT      = 102
	audioPT      = 111
	frameBytes   = BitRate / 8 / FrameRate * keyEvery / (keyEvery - 1 + keyWeight)
	keyframeSize = keyWeight * frameBytes
)

type kind int

const (
	audio kind = iota
	video
	kinds
)

// step is the distance of two frames' timestamps.
func (k kind) step() uint32 {
	if k == video {
		return videoClock / FrameRate
	}
	return audioClock / AudioRate
}

// due is when frame number n is sent, from the stream's start on.
func (k kind) due(n uint32) time.Duration {
	if k == video {
		return time.Duration(n) * time.Second / FrameRate
	}
	// Between two pictures rather than with one.
	return time.Duration(n)*time.Second/AudioRate + 7*time.Millisecond
}

// NAL units and the like (RFC 6184 §5.2, RFC 6716 §3.1).
var (
	sps = []byte{0x67, 0x42, 0xc0, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec, 0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, 0x03, 0xc6, 0x0c, 0x92}
	pps = []byte{0x68, 0xce, 0x3c, 0x80}
)

const (
	nalStapA, nalFUA = 24, 28
	nalSlice, nalIDR = 1, 5
	opusTOC          = 0x78 // CELT, full band, 20 ms, mono
	stampAt          = 3    // where a fragment or an audio packet holds its frame's number
)

var numberMark = [2]byte{0xb7, 0x5e} // before a frame's number

const numberSize = len(numberMark) + 4

// payloads appends to dst the payloads of frame n, of which buf holds the bytes.
func (k kind) payloads(dst [][]byte, buf []byte, n uint32, key bool) [][]byte {
	if k == audio {
		p := fill(buf[:audioSize])
		p[0] = opusTOC
		putNumber(p[stampAt:], n)
		return append(dst, p)
	}
	unit, size := byte(nalSlice), frameBytes
	if key {
		unit, size = nalIDR, keyframeSize
		set := parameterSets(buf[:0], n)
		dst, buf = append(dst, set), buf[len(set):]
	}
	const room = payloadSize - 2
	count := (size + room - 1) / room
	for i := range count {
		// Equal sizes, so that a frame can be sent in one run.
		p := fill(buf[:2+(size+count-1)/count])
		buf = buf[len(p):]
		p[0] = 0x60 | nalFUA
		p[1] = unit
		switch i {
		case 0:
			p[1] |= 0x80
		case count - 1:
			p[1] |= 0x40
		}
		p[2] = 0x88
		putNumber(p[stampAt:], n)
		dst = append(dst, p)
	}
	return dst
}

// parameterSets appends a STAP-A of SPS, PPS and an SEI that holds n.
func parameterSets(b []byte, n uint32) []byte {
	sei := append([]byte{0x06, 5, 22}, "weir test stream"...) // type, size, UUID
	sei = append(sei, make([]byte, numberSize)...)
	putNumber(sei[19:], n)
	sei = append(sei, 0x80)
	b = append(b, 0x60|nalStapA)
	for _, unit := range [][]byte{sps, pps, sei} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(unit)))
		b = append(b, unit...)
	}
	return b
}

// fill makes bytes that look like compressed media, without start codes.
func fill(b []byte) []byte {
	for i := range b {
		b[i] = byte(i*7) | 1
	}
	return b
}

func putNumber(b []byte, n uint32) {
	copy(b, numberMark[:])
	binary.BigEndian.PutUint32(b[2:], n)
}

// number finds the number of the frame that a payload belongs to.
func (k kind) number(p []byte) (uint32, bool) {
	at := stampAt
	if k == video && len(p) > 0 && p[0]&0x1f == nalStapA {
		at = 1 + 2 + len(sps) + 2 + len(pps) + 2 + 19
	}
	if len(p) < at+numberSize || [2]byte(p[at:]) != numberMark {
		return 0, false
	}
	return binary.BigEndian.Uint32(p[at+2:]), true
}

// A sentFrame is what the publisher remembers of a frame.
type sentFrame struct {
	number  uint32
	packets int
	key     bool
	at      int64 // when it was handed to the kernel, ns of the wall clock
}

// A log remembers the frames of the last half minute and more, for whoever
// meets their packets. One goroutine writes it.
type log struct {
	at     [logSize]atomic.Int64
	what   [logSize]atomic.Uint64 // number, packets, key
	newest atomic.Uint32
}

const logSize = 4096

func (l *log) put(f sentFrame) {
	i := f.number % logSize
	what := uint64(f.number)<<32 | uint64(f.packets)<<1
	if f.key {
		what |= 1
	}
	l.at[i].Store(f.at)
	l.what[i].Store(what)
	l.newest.Store(f.number)
}

func (l *log) get(n uint32) (sentFrame, bool) {
	i := n % logSize
	what := l.what[i].Load()
	f := sentFrame{number: uint32(what >> 32), packets: int(uint32(what) >> 1), key: what&1 != 0, at: l.at[i].Load()}
	return f, f.number == n && f.packets > 0
}
