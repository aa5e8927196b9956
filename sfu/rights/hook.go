package rights

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"weir/capacity"
	"weir/sfu/problem"
)

const (
	// hooksAtOnce bounds the concurrent requests to the hook, and hooksWaiting
	// those that wait for their turn.
	hooksAtOnce  = 32
	hooksWaiting = 256
	maxHookBody  = 16 << 10 // bytes
	maxReason    = 200      // bytes of the hook's reason for a client
	// maxGranted bounds the duration that a hook grants; longer ones are cut to
	// it.
	maxGranted = 365 * 24 * time.Hour
)

// A question is the body of a POST request to the hook.
type question struct {
	Action  Action `json:"action"` // "publish" or "view"
	Stream  string `json:"stream"`
	Network string `json:"network"`
	Client  string `json:"client"` // IP address
	// Token is the client's token, if no key of this node has verified it.
	Token string `json:"token,omitempty"`
	// Otherwise these are the claims of the verified token.
	Subject string `json:"subject,omitempty"`
	TokenID string `json:"token_id,omitempty"`
}

// A verdict is the hook's answer with status 200. Status 204 allows without
// bounds; 401 and 403 refuse, with or without a verdict.
type verdict struct {
	Allow    *bool   `json:"allow"`
	Reason   string  `json:"reason"`     // for the client, if refused
	Seconds  float64 `json:"expires_in"` // 0: the right does not end
	Subject  string  `json:"subject"`
	Sessions int     `json:"sessions"` // concurrent sessions of Subject
}

type hook struct {
	url     *url.URL
	network string
	timeout time.Duration
	client  *http.Client
	turns   chan struct{} // one for each request under way
	waiting chan struct{} // one for each request that waits for its turn
}

func newHook(address, network string, timeout time.Duration, client *http.Client) (*hook, error) {
	u, err := parseURL(address)
	if err != nil {
		return nil, err
	}
	if timeout <= 0 || timeout > 30*time.Second {
		return nil, fmt.Errorf("a time limit of %v: want more than 0 and at most 30s", timeout)
	}
	return &hook{url: u, network: network, timeout: timeout, client: client,
		turns: make(chan struct{}, hooksAtOnce), waiting: make(chan struct{}, hooksWaiting)}, nil
}

// ask asks the hook about the client of g, and bounds g by the answer.
func (h *hook) ask(ctx context.Context, r Request, g *Grant) *Refusal {
	ctx, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	select {
	case h.turns <- struct{}{}:
	default:
		select {
		case h.waiting <- struct{}{}:
		default:
			return refuse(HookBusy, "too many requests wait for this node's hook: try again")
		}
		select {
		case h.turns <- struct{}{}:
			<-h.waiting
		case <-ctx.Done():
			<-h.waiting
			return refuse(HookBusy, "this node's hook had no time for the request within %v: try again", h.timeout)
		}
	}
	defer func() { <-h.turns }()
	v, err := h.post(ctx, question{Action: r.Action, Stream: r.Stream, Network: h.network, Client: hostOf(r.Client), Token: r.Token, Subject: g.Subject, TokenID: g.TokenID})
	if err != nil {
		return refuse(HookFailed, "this node's hook did not say whether you may: %v", err)
	}
	if !*v.Allow {
		if why := told(v.Reason, r.Token); why != "" {
			return refuse(HookRefused, "this node's hook does not allow to %s stream %q: %s", r.Action, r.Stream, why)
		}
		return refuse(HookRefused, "this node's hook does not allow to %s stream %q", r.Action, r.Stream)
	}
	if v.Seconds > 0 {
		until := time.Now().Add(time.Duration(min(v.Seconds, maxGranted.Seconds()) * float64(time.Second)))
		if g.Expires.IsZero() || until.Before(g.Expires) {
			g.Expires, g.slack = until, 0
		}
	}
	if v.Subject != "" {
		g.Subject, g.identity = v.Subject, "sub "+v.Subject
	}
	if v.Sessions > 0 && (g.sessions == 0 || v.Sessions < g.sessions) {
		g.sessions = v.Sessions
	}
	if g.identity == "" && g.sessions > 0 {
		g.identity = "raw " + digest(r.Token)
		if r.Token == "" {
			g.identity = "addr " + hostOf(r.Client)
		}
	}
	return nil
}

func (h *hook) post(ctx context.Context, q question) (verdict, error) {
	body, err := json.Marshal(q)
	if err != nil {
		return verdict{}, errors.New("it could not be asked")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url.String(), bytes.NewReader(body))
	if err != nil {
		return verdict{}, errors.New("it could not be asked")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := h.client.Do(req)
	if err != nil {
		return verdict{}, errors.New(problem.Cause(problem.WithoutURL(err)))
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxHookBody+1))
	if err != nil {
		return verdict{}, errors.New(problem.Cause(err))
	}
	return parseVerdict(resp.StatusCode, resp.Header.Get("Content-Type"), b)
}

// parseVerdict parses an answer. Only an explicit yes allows: a page that asks
// for a password has status 200 as well.
func parseVerdict(status int, contentType string, body []byte) (verdict, error) {
	yes, no := true, false
	if status == http.StatusNoContent {
		return verdict{Allow: &yes}, nil
	}
	refused := status == http.StatusUnauthorized || status == http.StatusForbidden
	if status != http.StatusOK && !refused {
		return verdict{}, fmt.Errorf("it answered with status %d", status)
	}
	var v verdict
	kind, _, err := mime.ParseMediaType(contentType)
	isJSON := err == nil && kind == "application/json" && len(body) <= maxHookBody && json.Unmarshal(body, &v) == nil
	switch {
	case refused && !isJSON:
		return verdict{Allow: &no}, nil
	case refused:
		v.Allow = &no
		return v, nil
	case len(body) > maxHookBody:
		return verdict{}, fmt.Errorf("it answered with more than %d bytes", maxHookBody)
	case !isJSON || v.Allow == nil:
		return verdict{}, errors.New(`it answered 200 with something else than JSON as {"allow":true}`)
	case !(v.Seconds >= 0) || v.Sessions < 0 || len(v.Subject) > maxSubject:
		return verdict{}, errors.New("it answered with a bound that is none")
	}
	return v, nil
}

// secretLike matches possible credentials: a JWT, or a word after one that
// announces a secret.
var secretLike = regexp.MustCompile(`(?i)[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|\b(bearer|basic|token|ticket|secret|password|passwd|key|authorization)\b(["']?\s*[=:]\s*|\s+)\S+`)

// told returns the reason of a hook for the client, without the client's token
// and without text that looks like a secret.
func told(reason, token string) string {
	if token != "" {
		reason = strings.ReplaceAll(reason, token, "…")
	}
	return capacity.Printable(secretLike.ReplaceAllString(capacity.Printable(reason, 4*maxReason), "…"), maxReason)
}

func hostOf(client string) string {
	if at, err := netip.ParseAddrPort(client); err == nil {
		return at.Addr().Unmap().String()
	}
	return client
}
