package httpd

import (
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"weir/sfu/problem"
	"weir/sfu/proxied"
)

const (
	// eventStreams bounds the event streams that a node serves on one port…
	eventStreams = 64
	// …and those of one address. A browser opens six at most.
	eventStreamsEach = 8
)

// A StreamLimit bounds the event streams of one port, and of each address. The
// zero value is ready.
type StreamLimit struct {
	mu   sync.Mutex
	open map[netip.Prefix]int
	all  int
}

// Bound serves f while there is room for one more stream.
func (l *StreamLimit) Bound(f http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if release, ok := l.take(w, r); ok {
			defer release()
			f(w, r)
		}
	}
}

// take counts one more stream until release is called, or answers r that there
// are too many.
func (l *StreamLimit) take(w http.ResponseWriter, r *http.Request) (release func(), ok bool) {
	addr := proxied.Of(r).Group()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= eventStreams || l.open[addr] >= eventStreamsEach {
		problem.New(problem.TooManyEventStreams, fmt.Sprintf("at most %d event streams are served, and %d to one address: close another, or ask for the state now and then",
			eventStreams, eventStreamsEach)).Retry(5 * time.Second).Write(w)
		return nil, false
	}
	if l.open == nil {
		l.open = map[netip.Prefix]int{}
	}
	l.open[addr]++
	l.all++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.all--
		if l.open[addr]--; l.open[addr] == 0 {
			delete(l.open, addr)
		}
	}, true
}
