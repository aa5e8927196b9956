package httpd

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"weir/cmd/weir/survey"
	"weir/dht"
	"weir/sfu/problem"
)

// Fail answers r with err. Clients of the admin API and of the console may read
// the full text of errors; URLs in them may carry secrets.
func Fail(log *slog.Logger, w http.ResponseWriter, r *http.Request, err error) {
	p := problem.Of(err)
	switch {
	case p != nil:
	case errors.Is(err, dht.ErrUnanswered):
		p = problem.New(problem.NotKnown, "it is not known now: "+err.Error()).Retry(survey.RetryAfter)
	case errors.Is(err, context.DeadlineExceeded):
		p = problem.New(problem.NoAnswer, "the nodes asked did not answer in time").Retry(survey.RetryAfter)
	case errors.Is(err, context.Canceled):
		p = problem.New(problem.Closing, "this node is ending")
	default:
		p = problem.New(problem.Internal, problem.WithoutURL(err).Error())
		log.Warn("admin request failed", "path", r.URL.Path, "err", p.Detail)
	}
	p.Write(w)
}
