// Package arrival tells the sender of a connection when its packets have come
// (draft-holmer-rmcat-transport-wide-cc-extensions-01): browsers estimate their
// uplink from that. In go the numbers of the packets, out come messages of RTCP.
package arrival

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/rtcp"
)

const (
	// every is the time from a packet to the message that names it.
	every = 100 * time.Millisecond
	// jump is how far a number may be from the last one. The recorder takes time
	// and memory for all between: beyond, it begins anew.
	jump = 1 << 10
)

// A Reporter reports the packets of one connection. Close stops it and waits.
// Any goroutine may use it.
type Reporter struct {
	send  func([]rtcp.Packet) error
	ssrc  uint32 // of the sender of messages
	begun time.Time

	mu       sync.Mutex
	recorder *twcc.Recorder
	last     uint16
	timer    *time.Timer // nil: not set, and no message is being sent
	closed   bool
	firing   sync.WaitGroup // the timer, from when it is set
}

// NewReporter makes a Reporter that sends messages by send, from a goroutine of
// its timer.
func NewReporter(send func([]rtcp.Packet) error) *Reporter {
	return &Reporter{send: send, ssrc: rand.Uint32(), begun: time.Now()}
}

// Came takes the transport-wide number of a packet of ssrc that has come at now.
// It does not wait for messages that are sent.
func (r *Reporter) Came(ssrc uint32, number uint16, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if ahead := int16(number - r.last); r.recorder == nil || ahead > jump || ahead < -jump {
		r.recorder = twcc.NewRecorder(r.ssrc)
	}
	r.last = number
	r.recorder.Record(ssrc, number, now.Sub(r.begun).Microseconds())
	r.set()
}

// set sets the timer if there is anything to report. Called with mu held.
func (r *Reporter) set() {
	if r.timer == nil && !r.closed && r.recorder.PacketsHeld() > 0 {
		r.firing.Add(1)
		r.timer = time.AfterFunc(every, r.report)
	}
}

// report sends what has come since the last message.
func (r *Reporter) report() {
	defer r.firing.Done()
	r.mu.Lock()
	messages := r.recorder.BuildFeedbackPacket()
	r.mu.Unlock()
	if len(messages) > 0 {
		_ = r.send(messages) // it fails when the transport closes
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timer = nil
	r.set()
}

// Close ends the messages, and waits for one that is being sent.
func (r *Reporter) Close() {
	r.mu.Lock()
	r.closed = true
	if r.timer != nil && r.timer.Stop() {
		r.timer = nil
		r.firing.Done()
	}
	r.mu.Unlock()
	r.firing.Wait()
}
