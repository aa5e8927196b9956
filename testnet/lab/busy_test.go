package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A busyness measures how busy the machine is with other work: how much longer
// this process has taken since its start because its runnable threads did not
// run (proc_pid_schedstat(5)).
type busyness struct{ run, waited time.Duration }

func busySince() busyness { return readSchedstat() }

// stretch is 1 if this process ran whenever it could, 2 if it waited half of
// that time; 1 if the system does not report it.
func (b busyness) stretch() float64 {
	now := readSchedstat()
	run, waited := now.run-b.run, now.waited-b.waited
	if run <= 0 || waited <= 0 { // ended threads take their figures with them
		return 1
	}
	return float64(run+waited) / float64(run)
}

// aim scales d, which applies to an idle machine, to this one.
func (b busyness) aim(d time.Duration) time.Duration {
	return time.Duration(float64(d) * b.stretch())
}

// readSchedstat sums the figures of this process's threads.
func readSchedstat() (b busyness) {
	files, _ := filepath.Glob("/proc/self/task/*/schedstat")
	for _, f := range files {
		var run, waited int64
		if text, err := os.ReadFile(f); err == nil {
			if _, err := fmt.Sscan(string(text), &run, &waited); err == nil {
				b.run += time.Duration(run)
				b.waited += time.Duration(waited)
			}
		}
	}
	return b
}

// aimed fails the test if took is more than aim, scaled by b.
func (b busyness) aimed(t *testing.T, what string, took, aim time.Duration) {
	t.Helper()
	if most := b.aim(aim); took > most {
		t.Errorf("%s: %v, the aim is %v, stretched to %v as the machine is busy", what, took, aim, most)
	}
}
