package whip

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/meter"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/rights"
	"weir/sfu/sdp"
	"weir/sfu/whip/admission"
)

// A request is a WHIP or WHEP request that is not a session yet.
type request struct {
	server *Server
	kind   Kind
	name   string
	offer  *sdp.Offer
	raw    []byte
	client proxied.Client
	asked  time.Time      // when the request came
	until  time.Time      // a viewer waits for the stream until then; in the past: does not wait
	layer  forward.Choice // of a viewer
	ticket *capacity.Ticket
	grant  *rights.Grant // nil: no access control

	release func() // frees one of the sessions that its address may have
	entry   string // ledger entry, once the ticket has been claimed
	visit   *admission.Visit
}

// A redirect is the helper that a request is to be redirected to, as an error.
type redirect struct {
	helper Helper
	reason string // one word: the resource that is exhausted here
	need   capacity.Need
	tried  []peer.ID // unreachable helpers
}

func (h *redirect) Error() string { return "handed on to " + h.helper.Node.String() }

// serve sets the session up here, or returns a redirect.
func (a *request) serve(ctx context.Context) (*session, string, error) {
	if a.kind == WHIP {
		return a.publish(ctx)
	}
	for tries := 0; ; tries++ {
		sess, answer, err := a.view(ctx)
		if err == nil || !worthWaiting(err) || !time.Now().Before(a.until) {
			return a.finish(sess, answer, err)
		}
		if err := a.visit.Rest(); err != nil {
			return a.finish(nil, "", err)
		}
		if span := trace.SpanFromContext(ctx); span.IsRecording() {
			word, reason := problem.ErrorType(err)
			span.AddEvent("waiting", trace.WithAttributes(tracing.ErrorType.String(word), tracing.Reason.String(capacity.Printable(reason, problem.MaxReason))))
		}
		waiting, cancel := context.WithDeadline(ctx, a.until)
		awaited := a.server.cfg.Streams.Await(waiting, a.name, tries)
		cancel()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if awaited != nil {
			return a.finish(nil, "", err)
		}
	}
}

// finish releases the lease of a viewer's ticket if the viewer is not served.
func (a *request) finish(sess *session, answer string, err error) (*session, string, error) {
	if err != nil && a.entry != "" {
		a.server.cfg.Ledger.End(a.entry)
	}
	return sess, answer, err
}

func (a *request) publish(ctx context.Context) (*session, string, error) {
	done, err := a.server.names.reserve(a.name, a.grant)
	if err != nil {
		return nil, "", err
	}
	defer done()
	if err := a.visit.Work(ctx, admission.Patience); err != nil {
		return nil, "", err
	}
	entry, err := a.admit(ctx)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, SetupTimeout)
	defer cancel()
	sess, answer, err := a.setUpPublisher(ctx, entry)
	if err == nil {
		if a.ticket != nil {
			sess.from = a.ticket.From
		}
		sess.grant, sess.left = a.grant, a.release
		if err = a.server.names.take(ctx, sess); err != nil {
			sess.transport.Close()
		} else if err = a.server.admit(sess); err != nil {
			sess.unname()
		}
	}
	if err != nil {
		a.server.cfg.Ledger.End(entry)
		return nil, "", err
	}
	return sess, answer, nil
}

// view tries once to set a viewer up. While it waits, it holds only the lease
// of its ticket in the ledger.
func (a *request) view(ctx context.Context) (*session, string, error) {
	if err := a.visit.Work(ctx, max(admission.Patience, time.Until(a.until))); err != nil {
		return nil, "", err
	}
	entry, err := a.entry, error(nil)
	if entry == "" {
		if entry, err = a.admit(ctx); err != nil {
			return nil, "", err
		}
		if a.ticket != nil {
			a.entry = entry
		}
	}
	ctx, cancel := context.WithTimeout(ctx, SetupTimeout+a.roomWait())
	defer cancel()
	sess, answer, err := a.pullAndView(ctx, entry)
	if err == nil {
		if a.ticket != nil {
			sess.from = a.ticket.From
		}
		sess.grant, sess.left = a.grant, a.release
		err = a.server.admit(sess)
	}
	if err != nil && a.entry == "" {
		a.server.cfg.Ledger.End(entry)
	}
	return sess, answer, err
}

// admit adds the request to the ledger, and returns its entry there. The error
// may be a [capacity.Refusal] or a redirect.
func (a *request) admit(ctx context.Context) (string, error) {
	s, now := a.server, time.Now()
	if a.ticket != nil {
		if lease, err := s.cfg.Ledger.Claim(now, a.ticket.From, a.ticket.Lease); err == nil {
			return lease.ID, nil
		}
		return "", problem.New(problem.BadTicket, "the ticket has been used, or has expired: ask the server that sent you again")
	}
	purpose := capacity.View
	if a.kind == WHIP {
		purpose = capacity.Publish
	}
	need := meter.DefaultNeed(purpose, a.name)
	if here, _ := s.cfg.Streams.Here(a.name); here != nil && !here.Ended() && purpose == capacity.View {
		bits, packets := here.Rates()
		need = meter.NeedOf(purpose, a.name, bits, packets)
	}
	entry := "session/" + newETag()
	refused := s.cfg.Ledger.Admit(now, entry, need)
	if refused == nil {
		return entry, nil
	}
	if s.cfg.Overflow() == Refuse {
		return "", refused
	}
	if full := new(capacity.Refusal); !s.cfg.Rights.Transferable() && errors.As(refused, &full) {
		return "", &capacity.Refusal{Reason: full.Reason, Detail: fmt.Sprintf("%v, and it hands no client on: it has no secret for tickets by which another node would know its right", full), RetryAfter: full.RetryAfter}
	}
	ctx, cancel := context.WithTimeout(ctx, SetupTimeout+s.cfg.Patience)
	defer cancel()
	helper, err := s.cfg.Place(ctx, need, []peer.ID{s.cfg.Self})
	if err != nil {
		var nobody *capacity.Refusal
		if errors.As(err, &nobody) {
			return "", &capacity.Refusal{Reason: nobody.Reason, Detail: fmt.Sprintf("this node is full (%v), and so is the network: %s", refused, nobody.Detail), RetryAfter: nobody.RetryAfter}
		}
		return "", err
	}
	helper.Why = fmt.Sprintf("%v; %s", refused, helper.Why)
	onward := &redirect{helper: helper, need: need}
	if full := new(capacity.Refusal); errors.As(refused, &full) {
		onward.reason = full.Reason
	}
	return "", onward
}

// endedTries is how often a viewer is set up again if its stream ends during
// the setup: another publisher may have come.
const endedTries = 4

// pullAndView sets a viewer up, and pulls the stream here if it is not here
// yet.
func (a *request) pullAndView(ctx context.Context, entry string) (*session, string, error) {
	var hint *Source
	if a.ticket != nil && a.ticket.Source != "" {
		hint = &Source{Node: a.ticket.Source, Addrs: a.ticket.SourceAddrs, Lease: a.ticket.Lease}
	}
	until := time.Now().Add(a.roomWait())
	for ended := 0; ; ended++ {
		sess, answer, err := a.viewOnce(ctx, entry, hint, until)
		if !errors.Is(err, problem.ErrEnded) || ended == endedTries {
			return sess, answer, err
		}
	}
}

// roomWait returns how long to wait for a carrier with room. A client that
// accepts to wait longer for the stream to go live waits that long for room,
// too.
func (a *request) roomWait() time.Duration {
	return max(time.Until(a.until), a.server.cfg.RoomWait)
}

func (a *request) viewOnce(ctx context.Context, entry string, hint *Source, until time.Time) (*session, string, error) {
	st, release, err := a.server.cfg.Streams.Acquire(ctx, a.name, hint, until, a.visit.Rest)
	if err != nil {
		return nil, "", err
	}
	defer release()
	if err := a.visit.Work(ctx, SetupTimeout); err != nil {
		return nil, "", err
	}
	return a.setUpViewer(ctx, st, entry)
}

// worthWaiting reports whether waiting may help a viewer: the stream may go
// live, or a carrier may answer or get room.
func worthWaiting(err error) bool {
	if errors.Is(err, problem.ErrNotLive) || errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*problem.UnansweredError)) {
		return true
	}
	p := problem.Of(err)
	return p != nil && (p.Code == problem.NotKnown || p.Code == problem.Orphaned || p.Code == problem.OriginUnreachable)
}
