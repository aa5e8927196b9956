package tasks

import "testing"

func TestGroup(t *testing.T) {
	var g Group
	done := make(chan struct{})
	ran := false
	if !g.Start(func() { <-done; ran = true }) {
		t.Error("nothing is started")
	}
	g.Shut()
	if g.Start(func() { t.Error("started after it was shut") }) {
		t.Error("said to be started after it was shut")
	}
	close(done)
	if g.Wait(); !ran {
		t.Error("did not wait")
	}
}
