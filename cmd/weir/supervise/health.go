package supervise

import (
	"fmt"
	"net/http"
	"time"

	"weir/sfu/problem"
)

// readyRetry is the Retry-After of a node that is not in its network yet.
const readyRetry = time.Second

// Health serves the probes of service managers, orchestrators and load
// balancers. All fields are required.
type Health struct {
	Alive    *Liveness
	Ready    <-chan struct{} // closed once the node is in its network
	Draining func() bool
}

// Register adds the routes of h to mux.
func (h *Health) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /healthz", h.Alive.Healthz)
	mux.HandleFunc("GET /readyz", h.readyz)
}

// readyz says whether the node is in the network and takes placements.
func (h *Health) readyz(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-h.Ready:
	default:
		problem.New(problem.NotReady, "this node is not in its network yet").Retry(readyRetry).Write(w)
		return
	}
	if h.Draining() {
		problem.New(problem.Draining, "this node is draining: it takes nothing new").Write(w)
		return
	}
	fmt.Fprintln(w, "ready")
}
