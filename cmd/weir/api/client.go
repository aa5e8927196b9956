package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"weir/dht"
	"weir/sfu"
	"weir/sfu/problem"
)

const (
	// maxReply bounds the bytes read of an answer.
	maxReply = 64 << 20
	// maxEvent bounds one server-sent event, in bytes.
	maxEvent = 1 << 20
)

// A Client is a client of one node's admin API. Paths are those below /api/v1,
// such as /status. It is safe for concurrent use, and needs no closing.
type Client struct {
	URL  string       // of the node's --admin, such as http://127.0.0.1:8081
	HTTP *http.Client // nil: [http.DefaultClient]
}

// An UnreachableError says that no node answers, or that the connection broke
// during the answer.
type UnreachableError struct {
	URL string // the URL requested
	Err error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no node answers at %s (%s)", e.URL, problem.Cause(e.Err))
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// A RefusedError is an answer other than 200, with the [*problem.Problem] in it.
type RefusedError struct {
	URL    string // the URL requested
	Status string // such as 404 Not Found
	Said   *problem.Problem
}

func (e *RefusedError) Error() string { return fmt.Sprintf("%s: %s: %v", e.URL, e.Status, e.Said) }

func (e *RefusedError) Unwrap() error { return e.Said }

// ErrClosed says that the node has closed a stream of events.
var ErrClosed = errors.New("the node has closed the stream")

// Do sends one request. The answer has status 200, and the caller closes its
// body; the error is an [*UnreachableError] or a [*RefusedError], or says why
// the request is invalid.
func (c Client) Do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	h := c.HTTP
	if h == nil {
		h = http.DefaultClient
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, &UnreachableError{c.URL, err}
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, &RefusedError{req.URL.String(), resp.Status, problem.Read(resp)}
	}
	return resp, nil
}

// Raw requests path and returns the body of the answer.
func (c Client) Raw(ctx context.Context, path string) ([]byte, error) {
	return c.exchange(ctx, http.MethodGet, path, nil)
}

// Get requests path and decodes the answer into v.
func (c Client) Get(ctx context.Context, path string, v any) error {
	b, err := c.Raw(ctx, path)
	if err != nil {
		return err
	}
	return c.decode(path, b, v)
}

// Post sends body to path and decodes the answer into v.
func (c Client) Post(ctx context.Context, path string, body []byte, v any) error {
	b, err := c.exchange(ctx, http.MethodPost, path, body)
	if err != nil {
		return err
	}
	return c.decode(path, b, v)
}

func (c Client) exchange(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	resp, err := c.Do(ctx, method, path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return nil, &UnreachableError{c.URL, fmt.Errorf("the answer broke off: %w", err)}
	}
	return b, nil
}

func (c Client) decode(path string, b []byte, v any) error {
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s/api/v1%s: not the answer of a weir node: %w", c.URL, path, err)
	}
	return nil
}

// Events calls f with the data of each event that the node sends at path, until
// ctx ends, the node closes the stream, or f returns an error. It returns that
// error, never nil; [ErrClosed] if the node has closed the stream.
func (c Client) Events(ctx context.Context, path string, f func(data []byte) error) error {
	resp, err := c.Do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := f([]byte(data)); err != nil {
				return err
			}
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(ErrClosed, lines.Err())
}

// ask decodes the answer to path into a T.
func ask[T any](ctx context.Context, c Client, path string) (v T, err error) {
	err = c.Get(ctx, path, &v)
	return v, err
}

// Status requests the node's status.
func (c Client) Status(ctx context.Context) (Status, error) { return ask[Status](ctx, c, "/status") }

// Links requests the node's cascade links.
func (c Client) Links(ctx context.Context) ([]sfu.LinkStatus, error) {
	return ask[[]sfu.LinkStatus](ctx, c, "/links")
}

// Sessions requests the node's publishers and viewers.
func (c Client) Sessions(ctx context.Context) ([]sfu.SessionStatus, error) {
	return ask[[]sfu.SessionStatus](ctx, c, "/sessions")
}

// Decisions requests the node's last placements.
func (c Client) Decisions(ctx context.Context) ([]dht.Decision, error) {
	return ask[[]dht.Decision](ctx, c, "/decisions")
}

// Records requests the capacity records that the node finds; with a stream,
// those of its carriers.
func (c Client) Records(ctx context.Context, stream string) (Records, error) {
	path := "/records"
	if stream != "" {
		path += "?stream=" + url.QueryEscape(stream)
	}
	return ask[Records](ctx, c, path)
}
