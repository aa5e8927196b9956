package problem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
)

// Errors that determine the client's answer, from any part of a node.
var (
	// ErrNotLive means that the stream has no publisher now.
	ErrNotLive = errors.New("stream is not live")
	// ErrEnded means that a stream ended during the request for it.
	ErrEnded = fmt.Errorf("%w: it has just ended", ErrNotLive)
	// ErrClosing means that this node, or this part of it, is closing.
	ErrClosing = errors.New("this node is closing")
)

// A TakenError means that a stream's name has a publisher at another node.
type TakenError struct {
	Node peer.ID
	Now  bool // it is being taken there at the same time
}

// Error returns a sentence about the place.
func (e *TakenError) Error() string { return "the stream is being published " + e.Where() }

// Where returns only the place, for a sentence of the caller's.
func (e *TakenError) Where() string {
	if e.Now {
		return "since this very moment at node " + e.Node.String()
	}
	return "at node " + e.Node.String()
}

// An UnansweredError means that a fact about a stream or about the network
// cannot be determined now, because the responsible nodes have not answered. It
// is neither yes nor no.
type UnansweredError struct {
	Why        string        // for people: the nodes that did not answer
	RetryAfter time.Duration // 0: two seconds
}

// Error returns Why.
func (e *UnansweredError) Error() string { return e.Why }

// ErrorType returns the kind of err as one word for traces, and the reason of a
// refusal. The words are the codes of problems where there is one, and the
// result of the error's own method ErrorType.
func ErrorType(err error) (word, reason string) {
	var (
		refusal *capacity.Refusal
		own     interface{ ErrorType() string }
	)
	if p := Of(err); p != nil {
		return string(p.Code), p.Reason
	}
	switch {
	case errors.As(err, &refusal):
		return string(NoCapacity), refusal.Reason
	case errors.As(err, new(*UnansweredError)):
		return string(NotKnown), ""
	case errors.As(err, new(*TakenError)):
		return string(NameTaken), ""
	case errors.Is(err, ErrNotLive):
		return string(NotLive), ""
	case errors.Is(err, ErrClosing):
		return string(Closing), ""
	case errors.Is(err, context.Canceled):
		return "canceled", ""
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return string(Timeout), ""
	case errors.As(err, &own):
		return own.ErrorType(), ""
	}
	return "_OTHER", "" // name of the OpenTelemetry semantic conventions
}

// ReasonUnreachable is the reason of a refusal by a search whose candidates did
// not answer: there may be room, but no node confirms it.
const ReasonUnreachable = "unreachable"

// MaxReason bounds a reason in a span, in bytes: it may come from another node.
const MaxReason = 64

// Failed marks span as failed with err if err is not nil.
func Failed(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		return
	}
	word, reason := ErrorType(err)
	tracing.Fail(span, word)
	if reason != "" {
		span.SetAttributes(tracing.Reason.String(capacity.Printable(reason, MaxReason)))
	}
}
