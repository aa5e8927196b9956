package httpd

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// A deadlineWriter records the deadline of writes, and whether there was one at
// each.
type deadlineWriter struct {
	*httptest.ResponseRecorder
	deadline time.Time
	bounded  []bool
}

func (w *deadlineWriter) SetReadDeadline(time.Time) error { return nil }
func (w *deadlineWriter) SetWriteDeadline(t time.Time) error {
	w.deadline = t
	return nil
}
func (w *deadlineWriter) Write(b []byte) (int, error) {
	w.bounded = append(w.bounded, !w.deadline.IsZero())
	return w.ResponseRecorder.Write(b)
}

// Each event is written within a deadline, and none remains between events: over
// HTTP/2 it would end a quiet stream.
func TestQuietEventStreamHasNoDeadline(t *testing.T) {
	w := &deadlineWriter{ResponseRecorder: httptest.NewRecorder()}
	send, ok := EventStream(http.ResponseWriter(w))
	for i := range 3 {
		if !ok || send(i) != nil {
			t.Fatalf("event %d is not sent", i)
		}
		if len(w.bounded) != i+1 || !w.bounded[i] {
			t.Errorf("event %d is written without a deadline: %v", i, w.bounded)
		}
		if !w.deadline.IsZero() {
			t.Errorf("after event %d the deadline %v remains", i, w.deadline)
		}
	}
}
