package meter

import (
	"sync"
	"time"
)

// A ReportTrip measures the round trip to the receiver of our sender reports: a
// reception report names the sender report that came last, and how long ago
// (RFC 3550, section 6.4.1). The send time of each is kept here, since its NTP
// time is the publisher's. The zero value is ready.
type ReportTrip struct {
	mu   sync.Mutex
	out  [4]sentReport // the last sender reports
	next int
	rtt  time.Duration
}

type sentReport struct {
	id uint32 // the middle of its NTP time
	at time.Time
}

// Sent records that a sender report with that NTP time is sent at now.
func (r *ReportTrip) Sent(ntp uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out[r.next] = sentReport{uint32(ntp >> 16), now}
	r.next = (r.next + 1) % len(r.out)
}

// Reported processes a reception report received at now: id names a sender
// report, and delay is how long the far end has had it, in units of 1/65536 s.
func (r *ReportTrip) Reported(id, delay uint32, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.out {
		if id == 0 || s.id != id || s.at.IsZero() {
			continue
		}
		if rtt := now.Sub(s.at) - time.Duration(delay)*time.Second/65536; rtt > 0 && rtt < time.Minute {
			r.rtt = rtt
		}
		return
	}
}

// Last returns the last measurement; 0: there is none.
func (r *ReportTrip) Last() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rtt
}
