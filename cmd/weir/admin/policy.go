package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/cmd/weir/httpd"
	"weir/cmd/weir/policies"
	"weir/cmd/weir/survey"
	"weir/dht"
	"weir/dht/inspect"
	"weir/dht/policysync"
	"weir/sfu/problem"
)

// pushPolicy serves POST /api/v1/policy; the body is a signed policy.
func (a *API) pushPolicy(w http.ResponseWriter, r *http.Request) {
	sealed, err := io.ReadAll(http.MaxBytesReader(w, r.Body, signed.MaxPolicySize))
	if err != nil {
		problem.New(problem.TooLarge, fmt.Sprintf("a signed policy has at most %d bytes", signed.MaxPolicySize)).Write(w)
		return
	}
	p, err := a.Node.Policies.Push(sealed)
	switch {
	case errors.Is(err, policysync.ErrOld):
		problem.New(problem.OldPolicy, err.Error()).Write(w)
	case errors.Is(err, policysync.ErrNoOperator):
		problem.New(problem.BadPolicy, "this node has no operator: start it with --operator, and the ID that weir policy key prints").Write(w)
	case err != nil:
		problem.New(problem.BadPolicy, err.Error()).Write(w)
	default:
		httpd.WriteJSON(w, policies.EntryOf(p, sealed, true))
	}
}

// tryPolicy serves POST /api/v1/policy/try; the body is a policy's text. The
// query may give uplink, packets, region and stream of the needs to try it
// with, and file, the name to use in messages about mistakes.
func (a *API) tryPolicy(r *http.Request) (any, error) {
	text, err := io.ReadAll(http.MaxBytesReader(nil, r.Body, policies.MaxFile))
	if err != nil {
		return nil, problem.New(problem.TooLarge, fmt.Sprintf("a policy's text of more than %d bytes, or not all of it arrived", policies.MaxFile))
	}
	q := r.URL.Query()
	after, err := policy.Parse(cmp.Or(q.Get("file"), "policy"), text)
	if err != nil {
		return nil, problem.New(problem.BadPolicy, err.Error())
	}
	purposes := []capacity.Purpose{capacity.View, capacity.Publish}
	topics := []dht.Topic{dht.CapacityTopic()}
	if stream := q.Get("stream"); stream != "" {
		purposes = append(purposes, capacity.Cascade)
		topics = append(topics, dht.StreamTopic(stream))
	}
	var needs []capacity.Need
	for _, p := range purposes {
		need, err := needOf(q, p)
		if err != nil {
			return nil, err
		}
		needs = append(needs, need)
	}
	surveys := make(map[dht.Topic]inspect.Survey)
	for _, topic := range topics {
		ctx, cancel := context.WithTimeout(r.Context(), survey.Timeout)
		survey, err := a.Node.Reader.Survey(ctx, topic)
		cancel()
		if err == nil && len(survey.Candidates) == 0 && !survey.Hearing.Enough() {
			err = &dht.Unanswered{Topic: topic, Hearing: survey.Hearing}
		}
		if err != nil {
			return nil, fmt.Errorf("read the records of %s: %w", topic, err)
		}
		surveys[topic] = survey
	}
	t := policies.Trial(a.Policy(), after, surveys, needs, a.View.LastDecisions())
	t.Node = a.Node.ID()
	return t, nil
}
