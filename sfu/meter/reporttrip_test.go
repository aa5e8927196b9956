package meter

import (
	"testing"
	"time"
)

func TestRoundTripByReports(t *testing.T) {
	var r ReportTrip
	start := time.Now()
	ntp := uint64(0xDEADBEEF)<<32 | 0x12345678
	r.Sent(ntp, start)
	id := uint32(ntp >> 16)
	r.Reported(id+1, 0, start.Add(time.Second)) // of another report
	r.Reported(0, 0, start.Add(time.Second))    // of no report
	if got := r.Last(); got != 0 {
		t.Errorf("measured %v from nothing", got)
	}
	r.Reported(id, 65536/2, start.Add(540*time.Millisecond))
	if got := r.Last(); got != 40*time.Millisecond {
		t.Errorf("round trip %v, want 40ms", got)
	}
	r.Reported(id, 65536, start.Add(540*time.Millisecond)) // a delay longer than the round trip
	if got := r.Last(); got != 40*time.Millisecond {
		t.Errorf("round trip %v after a false report, want 40ms", got)
	}
	for i := range 10 {
		r.Sent(ntp+uint64(i+1)<<32, start)
	}
	r.Reported(id, 0, start.Add(time.Second))
	if got := r.Last(); got != 40*time.Millisecond {
		t.Errorf("round trip %v by a report that is forgotten", got)
	}
}
