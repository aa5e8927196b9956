package scale

import (
	"testing"
	"time"
)

func TestQueue(t *testing.T) {
	var q Queue
	for range MaxWaiting {
		if !q.Enter() {
			t.Fatal("full too soon")
		}
	}
	if q.Enter() {
		t.Error("more wait than may")
	}
	q.Leave()
	if !q.Enter() {
		t.Error("a place that is free is not given")
	}
	now := time.Now()
	if q.NoProvisioner(now) {
		t.Error("hopeless from the beginning")
	}
	q.FoundNobody(now)
	if !q.NoProvisioner(now.Add(nobodyFor-1)) || q.NoProvisioner(now.Add(nobodyFor)) {
		t.Error("that nobody starts servers is to be remembered for a while")
	}
}

// However many requests wait, one of them looks for room every 300 ms, and all
// look when one has found some.
func TestQueueSpacesAttempts(t *testing.T) {
	var q Queue
	for range 10 {
		q.Enter()
	}
	after, room := q.NextAttempt()
	if after != 10*attemptEvery || q.Len() != 10 {
		t.Errorf("the next attempt of %d is after %v", q.Len(), after)
	}
	select {
	case <-room:
		t.Error("there is room from the beginning")
	default:
	}
	q.FoundRoom()
	select {
	case <-room:
	default:
		t.Error("those that wait are not woken")
	}
	if _, again := q.NextAttempt(); again == room {
		t.Error("the next ones are woken by what woke these")
	}
}
