package httpd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"weir/capacity/event"
	"weir/sfu/problem"
)

// WriteJSON answers with v, which is not to be cached.
func WriteJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		problem.New(problem.Internal, err.Error()).Write(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(b, '\n'))
}

// EventStream begins server-sent events. Event numbers become IDs; values with
// an EventName have that name. Each is written within writeTimeout, or the
// stream is given up.
func EventStream(w http.ResponseWriter) (send func(v any) error, ok bool) {
	const writeTimeout = 10 * time.Second
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	_ = control.SetReadDeadline(time.Time{})
	if control.Flush() != nil {
		problem.New(problem.Internal, "this connection cannot stream").Write(w)
		return nil, false
	}
	return func(v any) error {
		b, err := json.Marshal(v)
		if err != nil {
			return err
		}
		head := ""
		switch v := v.(type) {
		case event.Event:
			head = fmt.Sprintf("id: %d\n", v.Seq)
		case interface{ EventName() string }:
			head = "event: " + v.EventName() + "\n"
		}
		_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
		// Over HTTP/2 a deadline ends the stream even if nothing is being written.
		defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
		if _, err := fmt.Fprintf(w, "%sdata: %s\n\n", head, b); err != nil {
			return err
		}
		return control.Flush()
	}, true
}
