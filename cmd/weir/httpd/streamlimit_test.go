package httpd

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestEventStreamsAreBounded(t *testing.T) {
	var l StreamLimit
	open := func(from string) (release func(), status int) {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = from
		release, ok := l.take(w, r)
		if ok {
			return release, http.StatusOK
		}
		if w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), `"code":"too-many-event-streams"`) {
			t.Errorf("refused with %v %s", w.Header(), w.Body)
		}
		return nil, w.Code
	}
	var first func()
	for i := range eventStreamsEach {
		release, status := open("192.0.2.1:1")
		if status != http.StatusOK {
			t.Fatalf("stream %d of an address: %d", i, status)
		}
		if i == 0 {
			first = release
		}
	}
	if _, status := open("192.0.2.1:2"); status != http.StatusTooManyRequests {
		t.Errorf("one more stream of an address than it may have: %d", status)
	}
	first()
	if _, status := open("192.0.2.1:3"); status != http.StatusOK {
		t.Errorf("a place that was given back: %d", status)
	}
	left := eventStreams - eventStreamsEach
	for i := range left {
		if _, status := open("198.51.100." + string(rune('0'+i/eventStreamsEach)) + ":1"); status != http.StatusOK {
			t.Fatalf("stream %d of all: %d", i, status)
		}
	}
	if _, status := open("203.0.113.1:1"); status != http.StatusTooManyRequests {
		t.Errorf("one more stream than all may have: %d", status)
	}
}
