package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"weir/cmd/weir/api"
	"weir/cmd/weir/drain"
	"weir/cmd/weir/httpd"
	"weir/sfu/problem"
)

func (a *API) serveDrain(w http.ResponseWriter, r *http.Request) {
	var req api.DrainRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&req); err != nil && !errors.Is(err, io.EOF) {
		problem.New(problem.BadBody, "want a JSON object with deadline_ms and exit: "+err.Error()).Write(w)
		return
	}
	if req.DeadlineMillis < 0 || req.DeadlineMillis > drain.Max.Milliseconds() {
		problem.New(problem.BadParameter, fmt.Sprintf("deadline_ms %d: want 0 for none, or up to %d", req.DeadlineMillis, drain.Max.Milliseconds())).Write(w)
		return
	}
	a.Drain.Start(time.Duration(req.DeadlineMillis)*time.Millisecond, req.Exit, drain.ByOperator)
	httpd.WriteJSON(w, a.Drain.Status())
}

func (a *API) serveUndrain(w http.ResponseWriter, _ *http.Request) {
	if a.Drain.Status().Reason == drain.ByStop {
		problem.New(problem.Closing, "the node was told to end: that cannot be taken back").Write(w)
		return
	}
	a.Drain.Stop("")
	httpd.WriteJSON(w, a.Drain.Status())
}
