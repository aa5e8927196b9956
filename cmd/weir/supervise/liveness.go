package supervise

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"weir/sfu/problem"
)

// CheckTime is how long the parts of a node may take to answer before it counts
// as stuck. No part waits for anything else while it holds its locks, so only a
// deadlock or an overloaded machine takes this long.
const CheckTime = 2 * time.Second

// A Part is a part of the node that all work depends on.
type Part struct {
	Name  string // for messages
	Touch func() // returns once the part's locks could be taken
}

// Liveness checks that a node still works, not only its listeners. It runs at
// most one goroutine for each part: a stuck part is not checked again until it
// answers.
type Liveness struct {
	parts []Part

	mu    sync.Mutex
	under map[string]chan struct{} // closed when the part has answered
}

func NewLiveness(parts ...Part) *Liveness {
	return &Liveness{parts: parts, under: map[string]chan struct{}{}}
}

// A stuckError names the parts that did not answer.
type stuckError struct {
	parts []string
	after time.Duration
}

func (e *stuckError) Error() string {
	return fmt.Sprintf("%s did not answer within %v", strings.Join(e.parts, " and "), e.after)
}

// check returns a [*stuckError] if a part has not answered within most, or the
// context's error if that ends earlier.
func (l *Liveness) check(ctx context.Context, most time.Duration) error {
	deadline := time.NewTimer(most)
	defer deadline.Stop()
	asked := make([]chan struct{}, len(l.parts))
	for i, p := range l.parts {
		asked[i] = l.ask(p)
	}
	late := false
	stuck := &stuckError{after: most}
	for i, answered := range asked {
		if !late {
			select {
			case <-answered:
				continue
			case <-deadline.C:
				late = true
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		select {
		case <-answered:
		default:
			stuck.parts = append(stuck.parts, l.parts[i].Name)
		}
	}
	if len(stuck.parts) > 0 {
		return stuck
	}
	return nil
}

// ask starts a check of p, unless one is under way.
func (l *Liveness) ask(p Part) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if answered, ok := l.under[p.Name]; ok {
		return answered
	}
	answered := make(chan struct{})
	l.under[p.Name] = answered
	go func() {
		p.Touch()
		l.mu.Lock()
		delete(l.under, p.Name)
		l.mu.Unlock()
		close(answered)
	}()
	return answered
}

// Healthz reports whether the node works at all: a node that does not is to be
// restarted. Whether it takes clients is for readyz.
func (l *Liveness) Healthz(w http.ResponseWriter, r *http.Request) {
	// Players request it from pages of other origins, isolated ones included.
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Cross-Origin-Resource-Policy", "cross-origin")
	if err := l.check(r.Context(), CheckTime); err != nil {
		problem.New(problem.Stuck, "this node does not work: "+err.Error()).Write(w)
		return
	}
	fmt.Fprintln(w, "ok")
}
