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

// Errors that decide what a client is told, whichever part of a node they come
// from.
var (
	// ErrNotLive means that nobody publishes the stream now.
	ErrNotLive = errors.New("stream is not live")
	// ErrEnded means that a stream ended just when it was wanted.
	ErrEnded = fmt.Errorf("%w: it has just ended", ErrNotLive)
	// ErrClosing means that this node, or this part of it, is being closed.
	ErrClosing = errors.New("this node is closing")
)

// A TakenError means that a stream's name has a publisher at another node.
type TakenError struct {
	Node peer.ID
	Now  bool // it is only being taken there, at the same time
}

// Error says where it is taken.
func (e *TakenError) Error() string { return "the stream is being published " + e.Where() }

// Where is that alone, for a sentence of the caller's.
func (e *TakenError) Where() string {
	if e.Now {
		return "since this very moment at node " + e.Node.String()
	}
	return "at node " + e.Node.String()
}

// An UnansweredError means that something about a stream, or about the network,
// cannot be known now: those who have to know have not answered. It is neither
// yes nor no.
type UnansweredError struct {
	Why        string        // for people: who did not answer
	RetryAfter time.Duration // 0: two seconds
}

// Error says who did not answer.
func (e *UnansweredError) Error() string { return e.Why }

// Word is what kind of error err is, as one word for traces, and the reason of a
// refusal. The words are the codes of problems where there is one, and those that
// an error has itself by a method Word.
func Word(err error) (word, reason string) {
	var (
		refusal *capacity.Refusal
		own     interface{ Word() string }
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
		return own.Word(), ""
	}
	return "_OTHER", "" // as the semantic conventions call it
}

// ReasonUnreachable is the reason of a refusal by a search whose candidates did
// not answer: there may be room, but nobody says so.
const ReasonUnreachable = "unreachable"

// MaxReason bounds what a span says of a reason, which may be another node's
// word, in bytes.
const MaxReason = 64

// Failed marks span as one of work that failed with err, if it did.
func Failed(span trace.Span, err error) {
	if err == nil || !span.IsRecording() {
		return
	}
	word, reason := Word(err)
	tracing.Fail(span, word)
	if reason != "" {
		span.SetAttributes(tracing.Reason.String(capacity.Printable(reason, MaxReason)))
	}
}
