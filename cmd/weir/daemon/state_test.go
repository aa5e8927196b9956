package daemon

import (
	"strings"
	"testing"
	"time"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
)

func TestFullAndFreeAgain(t *testing.T) {
	var f fullness
	now := time.Now()
	full := ledger.Totals{State: capacity.Full, Sessions: 9, Limits: ledger.Limits{Sessions: 10, Uplink: 1e9}, Load: ledger.Load{Uplink: 1e8, CPU: 0.5, CPULimit: 1}}
	e, changed := f.next(now, full)
	if !changed || e.Kind != event.NodeFull || e.Reason != "sessions" || e.Detail != "9 of 10 sessions" {
		t.Errorf("when it fills: %+v", e)
	}
	if _, changed := f.next(now.Add(time.Second), full); changed {
		t.Error("told twice that it is full")
	}
	if _, changed := f.next(now.Add(time.Second), ledger.Totals{State: capacity.Draining}); changed {
		t.Error("a node that drains is told to have room")
	}
	e, changed = f.next(now.Add(3*time.Second), ledger.Totals{})
	if !changed || e.Kind != event.NodeFree || e.Elapsed != 3000 {
		t.Errorf("when it has room: %+v", e)
	}
	if _, changed := f.next(now, ledger.Totals{}); changed {
		t.Error("told twice that it has room")
	}
	full.Late, full.Load.Delay, full.Load.DelayLimit = true, 61*time.Millisecond, 50*time.Millisecond
	if e, _ := f.next(now, full); e.Reason != "delay" || !strings.Contains(e.Detail, "61ms late, at most 50ms") {
		t.Errorf("when it is late: %+v", e)
	}
}
