package drain

import (
	"testing"
	"time"
)

func TestDrainState(t *testing.T) {
	now := time.Now()
	var d state
	if d.due(now, time.Hour) {
		t.Error("due before it has begun")
	}
	if !d.begin(now, time.Minute, true, ByOperator) || d.begin(now, time.Minute, true, ByOperator) {
		t.Error("it begins once")
	}
	if d.due(now, 0) || !d.due(now, Linger) || !d.due(now.Add(time.Minute), 0) {
		t.Error("due when it has been empty for a moment, or at the deadline")
	}
	if d.beginAlone(now, "idle") || d.end("idle") {
		t.Error("a release has taken the operator's drain over")
	}
	if !d.end("") || d.status().Draining || d.due(now.Add(time.Hour), time.Hour) {
		t.Error("it has not ended")
	}
	if !d.beginAlone(now, "idle") || d.due(now, time.Hour) {
		t.Error("a release ends its process itself")
	}
	d.begin(now, 0, false, ByOperator)
	if d.end("idle") {
		t.Error("a release has ended what the operator asked for meanwhile")
	}
}
