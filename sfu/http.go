package sfu

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/scope"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/rights"
	"weir/sfu/sdp"
)

const (
	typeSDP      = "application/sdp"
	typeFragment = "application/trickle-ice-sdpfrag"

	// setupTimeout bounds one request: finding, placing, pulling, answering.
	setupTimeout = 8 * time.Second
	// relayTimeout bounds the helper's answer in Overflow Relay. The helper may
	// hold it for as long as nobody has room for its pull.
	relayTimeout = setupTimeout + defaultRoomWait
	// retryNotLive is when to ask again for a stream that is not live yet.
	retryNotLive = 2 * time.Second
	// retryBusy is when to ask again while nobody has room.
	retryBusy = 5 * time.Second
	// MaxWait bounds what ?wait= may ask for.
	MaxWait = 30 * time.Second
)

// Handler serves WHIP at /whip/{stream}, WHEP at /whep/{stream}, and the
// sessions of both at /session/{id}.
func (s *SFU) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /whip/{stream...}", s.post(kindWHIP))
	mux.HandleFunc("POST /whep/{stream...}", s.post(kindWHEP))
	mux.HandleFunc("PATCH /session/{id}", s.patch)
	mux.HandleFunc("DELETE /session/{id}", s.delete)
	for _, pattern := range []string{"/whip/{stream...}", "/whep/{stream...}"} {
		mux.HandleFunc("OPTIONS "+pattern, preflight("POST, OPTIONS"))
		mux.HandleFunc(pattern, notAllowed("POST, OPTIONS", "send an SDP offer by POST"))
	}
	mux.HandleFunc("OPTIONS /session/{id}", preflight("PATCH, DELETE, OPTIONS"))
	mux.HandleFunc("/session/{id}", notAllowed("PATCH, DELETE, OPTIONS", "a session takes PATCH and DELETE"))
	known := s.traced(problem.Mux(mux))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cfg.Origins.allow(w, r) {
			w.Header().Set("Access-Control-Expose-Headers", "Location, ETag, Link, Retry-After, Accept-Patch, WWW-Authenticate, "+tracing.Header)
		}
		known.ServeHTTP(w, r)
	})
}

// preflight answers CORS and RFC 9725's discovery by OPTIONS. It never asks
// for credentials and never redirects: browsers would give up.
func preflight(methods string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		if h.Get(allowOrigin) != "" {
			h.Set("Access-Control-Allow-Methods", methods)
			h.Set("Access-Control-Allow-Headers", "Content-Type, Authorization, If-Match, Traceparent")
			h.Set("Access-Control-Max-Age", "86400")
		}
		if strings.HasPrefix(methods, "POST") {
			h.Set("Accept-Post", typeSDP)
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func notAllowed(methods, advice string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", methods)
		problem.New(problem.BadMethod, r.Method+" is not served here: "+advice).Write(w)
	}
}

// fail tells the client what went wrong.
func (s *SFU) fail(w http.ResponseWriter, r *http.Request, err error) {
	var p problem.Problem
	if refused := refusalOf(err); refused != nil {
		p = *s.noRight(w, r, refused)
	} else {
		p = *s.problemOf(r, err) // it may be the one of a pull that others wait for too
	}
	if p.Stream == "" {
		p.Stream = r.PathValue("stream")
	}
	refusedWith(r.Context(), &p)
	p.Write(w)
}

// problemOf says err in words of our own. What is not foreseen is logged.
func (s *SFU) problemOf(r *http.Request, err error) *problem.Problem {
	var (
		refusal *capacity.Refusal
		badSDP  sdp.Error
		refused sdp.Unacceptable
		silent  *UnansweredError
	)
	if p := problem.Of(err); p != nil {
		if slices.Contains([]problem.Code{problem.TooManySetups, problem.TooManyWaiting, problem.TooManyFromAddress}, p.Code) {
			s.eventOf(r.Context(), Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: string(p.Code), Detail: p.Detail})
		}
		return p
	}
	switch {
	case errors.As(err, &refusal):
		s.eventOf(r.Context(), Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: refusal.Reason, Detail: refusal.Error()})
		code := problem.NoCapacity
		if refusal.Reason == reasonUnreachable {
			code = problem.HelperUnreachable // there may be room, but nobody says so
		}
		p := problem.New(code, refusal.Error()).Retry(max(refusal.RetryAfter, retryBusy))
		p.Reason = refusal.Reason
		return p
	case errors.As(err, &badSDP):
		return problem.New(problem.BadSDP, badSDP.Error())
	case errors.As(err, &refused):
		return s.refuseOffer(r, problem.New(problem.UnusableOffer, refused.Error()))
	case errors.Is(err, sdp.ErrNoCodec):
		return s.refuseOffer(r, problem.New(problem.NoCommonCodec, err.Error()))
	case errors.As(err, &silent):
		s.eventOf(r.Context(), Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: string(problem.NotKnown), Detail: silent.Error()})
		return problem.New(problem.NotKnown, fmt.Sprintf("it is not known yet, try again: %s", silent)).Retry(cmp.Or(silent.RetryAfter, retryNotLive))
	case errors.Is(err, ErrNotLive):
		return problem.New(problem.NotLive, fmt.Sprintf("stream %q is not live: try again when it is published", r.PathValue("stream"))).Retry(retryNotLive)
	case errors.Is(err, problem.ErrClosing), errors.Is(err, context.Canceled), s.ctx.Err() != nil: // or the client has gone
		return problem.New(problem.Closing, "this node is ending: ask another one").Retry(retryNotLive)
	case errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Timeout, "the session could not be set up in time: try again").Retry(retryNotLive)
	}
	p := problem.New(problem.Internal, "this node failed; its log says more").Retry(retryBusy)
	p.Request = rand.Text()
	s.log.WarnContext(r.Context(), "request failed", "request", p.Request, "path", r.URL.Path, "err", problem.WithoutURL(err))
	return p
}

// roleAt is what a client is that posts to path.
func roleAt(path string) string {
	if strings.HasPrefix(path, "/whip/") {
		return kindWHIP.role()
	}
	return kindWHEP.role()
}

// refuseOffer tells that a sound offer was refused for what it offers: the client
// may keep it to itself.
func (s *SFU) refuseOffer(r *http.Request, p *problem.Problem) *problem.Problem {
	s.eventOf(r.Context(), Event{Kind: event.Refused, Stream: r.PathValue("stream"), Role: roleAt(r.URL.Path), Client: proxied.Of(r).String(), Reason: string(p.Code), Detail: p.Detail})
	return p
}

// body reads a request's body of the wanted type, at most MaxSDP bytes.
func body(w http.ResponseWriter, r *http.Request, want string) ([]byte, error) {
	if got, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || got != want {
		return nil, problem.New(problem.BadMediaType, fmt.Sprintf("Content-Type is %q: send %s", r.Header.Get("Content-Type"), want))
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, sdp.MaxBytes))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		// Who still sends when the connection is closed loses the answer.
		_, _ = io.CopyN(io.Discard, r.Body, 4*sdp.MaxBytes)
		return nil, problem.New(problem.TooLarge, fmt.Sprintf("the body is longer than %d bytes", sdp.MaxBytes))
	}
	if err != nil {
		return nil, problem.New(problem.BadBody, "the body did not arrive whole")
	}
	return b, nil
}

// post serves both WHIP and WHEP: they differ in what is set up.
func (s *SFU) post(kind sessionKind) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.open(w, r, kind); err != nil {
			s.fail(w, r, err)
		}
	}
}

func (s *SFU) open(w http.ResponseWriter, r *http.Request, kind sessionKind) error {
	asked, name := time.Now(), r.PathValue("stream")
	if err := capacity.ValidStreamName(name); err != nil {
		return problem.New(problem.BadStreamName, err.Error())
	}
	grant, ticket, err := s.authorize(r.Context(), r, kind, name)
	if err != nil {
		return err
	}
	settled := false
	defer func() {
		if !settled {
			grant.Close()
		}
	}()
	raw, err := body(w, r, typeSDP)
	if err != nil {
		return err
	}
	o, err := sdp.ParseOffer(raw)
	if err != nil {
		return err
	}
	wait, err := waitOf(r)
	if err != nil {
		return err
	}

	// The whole request is here: the server's time for reading one would end it
	// while it waits.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()

	client := proxied.Of(r)
	release, err := s.admission.hold(client.Group())
	if err != nil {
		return err
	}
	defer func() {
		if !settled {
			release()
		}
	}()
	a := &arrival{asked: asked, sfu: s, kind: kind, name: name, offer: o, raw: raw, client: client, until: time.Now().Add(wait), ticket: ticket, grant: grant, release: release}
	a.visit = s.admission.visit(kind, client.Group(), name, len(raw))
	defer a.visit.leave()
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(tracing.Stream.String(name), tracing.Role.String(kind.role()))
	}
	sess, answer, err := a.serve(ctx)
	var onward *handover
	if errors.As(err, &onward) {
		return s.handOn(ctx, w, a, onward)
	}
	if err != nil {
		return err
	}
	settled = true // the session gives it back
	h := w.Header()
	h.Set("Content-Type", typeSDP)
	h.Set("Location", s.base(r)+"/session/"+sess.id)
	h.Set("ETag", sess.etag)
	h.Set("Accept-Patch", typeFragment)
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, answer)
	return nil
}

// waitOf is how long the client lets us wait for the stream to go live.
func waitOf(r *http.Request) (time.Duration, error) {
	v := r.URL.Query().Get("wait")
	if v == "" {
		return 0, nil
	}
	wait, err := time.ParseDuration(v)
	if err != nil || wait < 0 || wait > MaxWait {
		return 0, problem.New(problem.BadWait, fmt.Sprintf("wait=%s: want a duration up to %v, such as 10s", v, MaxWait))
	}
	return wait, nil
}

// base is the public URL of this node.
func (s *SFU) base(r *http.Request) string {
	if s.cfg.PublicURL != "" {
		return strings.TrimSuffix(s.cfg.PublicURL, "/")
	}
	return proxied.Of(r).Base()
}

// ticket checks the ticket that another node gave the client.
func (s *SFU) ticket(r *http.Request, kind sessionKind, name string) (*capacity.Ticket, error) {
	shown := r.Context().Value(shownTicketKey{}).(*shownTicket) // by traced
	t, err, why := shown.Ticket, shown.err, ""
	switch want := map[sessionKind]capacity.Purpose{kindWHIP: capacity.Publish, kindWHEP: capacity.View}[kind]; {
	case errors.Is(err, capacity.ErrExpired):
		why = "it has expired"
	case errors.Is(err, capacity.ErrWrongTarget):
		why = "it is for another node"
	case err != nil:
		why = "it is not whole, or not of the node that it names"
	case t.Stream != name:
		why = fmt.Sprintf("it is for stream %q", t.Stream)
	case t.Purpose != want:
		why = fmt.Sprintf("it is for %s", t.Purpose)
	default:
		return &t, nil
	}
	return nil, problem.New(problem.BadTicket, "the ticket is not good here: "+why+"; ask the server that sent you again")
}

// An arrival is a client on its way in.
type arrival struct {
	sfu    *SFU
	kind   sessionKind
	name   string
	offer  *sdp.Offer
	raw    []byte
	client proxied.Client
	asked  time.Time // when the request came
	until  time.Time // how long a viewer waits for the stream; now or before: not
	ticket *capacity.Ticket
	grant  *rights.Grant // nil: no right is asked for

	release func() // gives back one of the sessions that its address may have
	entry   string // in the ledger, once the ticket has been claimed
	visit   *visit
}

// A handover is the helper that an arrival is to be sent to, as an error.
type handover struct {
	helper Helper
	reason string // a word: what there is no room for here
	need   capacity.Need
	tried  []peer.ID // helpers that were not reached
}

func (h *handover) Error() string { return "handed on to " + h.helper.Node.String() }

// serve sets the session up here, or returns a handover.
func (a *arrival) serve(ctx context.Context) (*session, string, error) {
	if a.kind == kindWHIP {
		return a.publish(ctx)
	}
	for tries := 0; ; tries++ {
		sess, answer, err := a.view(ctx)
		if err == nil || !worthWaiting(err) || !time.Now().Before(a.until) {
			return a.finish(sess, answer, err)
		}
		if err := a.visit.rest(); err != nil {
			return a.finish(nil, "", err)
		}
		if span := trace.SpanFromContext(ctx); span.IsRecording() {
			word, reason := problem.Word(err)
			span.AddEvent("waiting", trace.WithAttributes(tracing.ErrorType.String(word), tracing.Reason.String(capacity.Printable(reason, problem.MaxReason))))
		}
		waiting, cancel := context.WithDeadline(ctx, a.until)
		awaited := a.sfu.await(waiting, a.name, tries)
		cancel()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if awaited != nil {
			return a.finish(nil, "", err)
		}
	}
}

// finish gives back what a viewer's ticket was for if the viewer is not served.
func (a *arrival) finish(sess *session, answer string, err error) (*session, string, error) {
	if err != nil && a.entry != "" {
		a.sfu.cfg.Ledger.End(a.entry)
	}
	return sess, answer, err
}

func (a *arrival) publish(ctx context.Context) (*session, string, error) {
	done, err := a.reserveName()
	if err != nil {
		return nil, "", err
	}
	defer done()
	if err := a.visit.work(ctx, setupPatience); err != nil {
		return nil, "", err
	}
	entry, err := a.enter(ctx)
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	var (
		sess   *session
		answer string
	)
	// Asked where the publisher stays only: who is handed on is asked there.
	// Where a publisher here is to give way, this node has the name already.
	release, inherit := func() {}, a.sfu.abandoned(a.name)
	if !inherit {
		release, err = a.claim(ctx)
	}
	if err == nil {
		if sess, answer, err = a.sfu.publisher(ctx, a.name, a.offer, entry, a.client.String()); err != nil {
			release()
		} else {
			sess.unname = release
			if err = a.sfu.publish(a, sess, inherit); err != nil {
				sess.discard()
			}
		}
	}
	if err == nil {
		if a.ticket != nil {
			sess.from = a.ticket.From
		}
		sess.grant, sess.left = a.grant, a.release
		err = a.sfu.admit(sess)
	}
	if err != nil {
		if sess != nil && sess.unname != nil {
			sess.unname()
		}
		a.sfu.cfg.Ledger.End(entry)
		return nil, "", err
	}
	return sess, answer, nil
}

// view tries once to set a viewer up. What it holds in the ledger while it
// waits is the lease of its ticket only.
func (a *arrival) view(ctx context.Context) (*session, string, error) {
	if err := a.visit.work(ctx, max(setupPatience, time.Until(a.until))); err != nil {
		return nil, "", err
	}
	entry, err := a.entry, error(nil)
	if entry == "" {
		if entry, err = a.enter(ctx); err != nil {
			return nil, "", err
		}
		if a.ticket != nil {
			a.entry = entry
		}
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout+a.roomWait())
	defer cancel()
	sess, answer, err := a.pullAndView(ctx, entry)
	if err == nil {
		if a.ticket != nil {
			sess.from = a.ticket.From
		}
		sess.grant, sess.left = a.grant, a.release
		err = a.sfu.admit(sess)
	}
	if err != nil && a.entry == "" {
		a.sfu.cfg.Ledger.End(entry)
	}
	return sess, answer, err
}

// enter gets the arrival past the ledger, and returns its entry there.
func (a *arrival) enter(ctx context.Context) (string, error) {
	s, now := a.sfu, time.Now()
	if a.ticket != nil {
		if lease, err := s.cfg.Ledger.Claim(now, a.ticket.From, a.ticket.Lease); err == nil {
			return lease.ID, nil
		}
		return "", problem.New(problem.BadTicket, "the ticket has been used, or has expired: ask the server that sent you again")
	}
	purpose := capacity.View
	if a.kind == kindWHIP {
		purpose = capacity.Publish
	}
	need := DefaultNeed(purpose, a.name)
	here := s.stream(a.name)
	if here != nil && purpose == capacity.View {
		need = here.load(purpose)
	}
	entry := "session/" + newETag()
	refused := s.cfg.Ledger.Admit(now, entry, need)
	if refused == nil {
		return entry, nil
	}
	if s.cfg.Overflow() == Refuse {
		return "", refused
	}
	if full := new(capacity.Refusal); !s.cfg.Rights.HandsOn() && errors.As(refused, &full) {
		return "", &capacity.Refusal{Reason: full.Reason, Detail: fmt.Sprintf("%v, and it hands no client on: it has no secret for tickets by which another node would know its right", full), RetryAfter: full.RetryAfter}
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout+s.cfg.Patience)
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
	handover := &handover{helper: helper, need: need}
	if full := new(capacity.Refusal); errors.As(refused, &full) {
		handover.reason = full.Reason
	}
	return "", handover
}

// reserveName sees to it that a stream has one publisher here, and returns what
// to call once that is settled.
func (a *arrival) reserveName() (func(), error) {
	s := a.sfu
	s.mu.Lock()
	defer s.mu.Unlock()
	here, busy := s.streams[a.name], s.publishing[a.name]
	if busy || here != nil && here.Origin && !here.abandoned(time.Now()) {
		return nil, a.taken("here")
	}
	s.publishing[a.name] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.publishing, a.name)
	}, nil
}

// claim takes the stream's name, so that no other node gives it to another
// publisher, and returns what gives it up.
func (a *arrival) claim(ctx context.Context) (release func(), err error) {
	if a.sfu.cfg.Claim == nil {
		return func() {}, nil
	}
	release, err = a.sfu.cfg.Claim(ctx, a.name)
	var taken *TakenError
	if errors.As(err, &taken) {
		return nil, a.taken(taken.Where())
	}
	return release, err
}

func (a *arrival) taken(where string) error {
	return problem.New(problem.NameTaken, fmt.Sprintf("stream %q is being published %s: choose another name, or end that session first", a.name, where)).Retry(retryNotLive)
}

// abandoned reports whether the stream's publisher has sent nothing for so long
// that another may take its name. Called with SFU.mu held.
func (s *Stream) abandoned(now time.Time) bool {
	return s.owner != nil && s.owner.in.Silence(now, s.owner.began) >= giveWayAfter
}

// abandoned reports whether a publisher of that name here is to give way.
func (s *SFU) abandoned(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	here := s.streams[name]
	return here != nil && here.Origin && here.abandoned(time.Now())
}

// publish makes the session's stream known here. With inherit, a publisher of
// that name has fallen silent: its claim to the name is the session's from now
// on, and its stream goes on with the session's tracks where those are alike,
// so that its viewers stay.
func (s *SFU) publish(a *arrival, sess *session, inherit bool) error {
	now := time.Now()
	s.mu.Lock()
	old := s.streams[sess.stream.Name]
	var gone *session
	origin := old != nil && old.Origin
	if origin != inherit || origin && !old.abandoned(now) { // it sends again, or has just gone
		s.mu.Unlock()
		return a.taken("here")
	}
	if origin {
		gone, old.owner = old.owner, nil
		sess.unname = gone.unname
	}
	if gone != nil && !old.Ended() && old.goesOnAs(sess.stream.Tracks) {
		sess.stream = old
		sess.in.Adopt(old.Tracks)
		old = nil
	}
	sess.stream.owner = sess
	s.streams[sess.stream.Name] = sess.stream
	s.sighted(sess.stream.Name)
	s.mu.Unlock()
	if gone != nil {
		silent := gone.in.Silence(now, gone.began)
		e := Event{Kind: event.PublisherReplaced, Stream: sess.stream.Name, Session: sess.id, Elapsed: milliseconds(silent),
			Detail: fmt.Sprintf("session %s had sent nothing for %v; its viewers stay", gone.id, silent.Round(time.Millisecond))}
		if old != nil {
			e.Detail = fmt.Sprintf("session %s had sent nothing for %v; its viewers have to come again, since the tracks differ", gone.id, silent.Round(time.Millisecond))
		}
		gone.end(fmt.Sprintf("it sent nothing for %v, and a new publisher came under its name", silent.Round(time.Millisecond)))
		s.event(e)
	}
	switch {
	case old == nil:
	case gone != nil:
		old.End(reasonFinished)
		s.tellEnd(old)
	default: // a relay of a publisher that has gone
		old.End(reasonLost)
	}
	s.cfg.Changed()
	return nil
}

// finish ends the stream of a publisher that has gone and gives its name up,
// unless another publisher has taken both over.
func (s *SFU) finish(sess *session) {
	s.mu.Lock()
	mine := sess.stream.owner == sess
	if mine {
		sess.stream.owner = nil
	}
	s.mu.Unlock()
	if mine {
		s.drop(sess.stream, reasonFinished)
		s.tellEnd(sess.stream)
		sess.unname()
	}
}

// tellEnd tells that a stream that was published here is over.
func (s *SFU) tellEnd(st *Stream) {
	if lasted, started := st.Finish(time.Now()); started {
		s.event(Event{Kind: event.StreamEnded, Stream: st.Name, Elapsed: milliseconds(lasted)})
	}
}

// pullAndView sets a viewer up, pulling the stream here if need be.
func (a *arrival) pullAndView(ctx context.Context, entry string) (*session, string, error) {
	var hint *Carrier
	if a.ticket != nil && a.ticket.Source != "" {
		hint = &Carrier{Node: a.ticket.Source, Addrs: a.ticket.SourceAddrs, Lease: a.ticket.Lease}
	}
	until := time.Now().Add(a.roomWait())
	for ended := 0; ; ended++ {
		sess, answer, err := a.viewOnce(ctx, entry, hint, until)
		if !errors.Is(err, errEnded) || ended == pullAttempts {
			return sess, answer, err
		}
	}
}

// roomWait is how long a carrier with room may be waited for. A client that
// waits longer for the stream to go live waits as long for that.
func (a *arrival) roomWait() time.Duration {
	return max(time.Until(a.until), a.sfu.cfg.RoomWait)
}

func (a *arrival) viewOnce(ctx context.Context, entry string, hint *Carrier, until time.Time) (*session, string, error) {
	st, release, err := a.sfu.acquire(ctx, a.name, hint, until, a.visit.rest)
	if err != nil {
		return nil, "", err
	}
	defer release()
	if err := a.visit.work(ctx, setupTimeout); err != nil {
		return nil, "", err
	}
	sess, answer, err := a.sfu.viewer(ctx, st, a.offer, entry, a.client.String())
	if err == nil {
		sess.asked, sess.first = a.asked, a.sfu.awaitFirstFrame(ctx, sess)
	}
	return sess, answer, err
}

// handOn sends the client to a helper, with a ticket in the URL: browsers and
// Go clients drop an Authorization header on the way to another host.
func (s *SFU) handOn(ctx context.Context, w http.ResponseWriter, a *arrival, h *handover) error {
	helper := h.helper
	if err := s.cfg.Gate.CheckURL(scope.Redirect, helper.URL); err != nil {
		return notReached(helper, "clients must not be sent to the address that it gives")
	}
	purpose := capacity.Publish
	t := capacity.Ticket{
		Lease: helper.Lease.ID, Stream: a.name, Purpose: purpose, Target: helper.Node, From: s.cfg.Self,
		Expires: helper.Lease.Expires, Trace: tracing.ToWire(ctx),
	}
	if a.kind == kindWHEP {
		t.Purpose = capacity.View
		if s.stream(a.name) != nil {
			// The pull that the helper will need is granted here and now. If even
			// that is refused, the helper looks for another carrier, unless it is
			// since it has enough leases already: then it may have been here before,
			// or comes in by the ledger.
			need := DefaultNeed(capacity.Cascade, a.name)
			_, err := s.cfg.Ledger.Reserve(time.Now(), capacity.Request{ID: t.Lease, From: helper.Node, Need: need})
			var refused *capacity.Refusal
			if err == nil || errors.As(err, &refused) && refused.Reason == "share" {
				t.Source, t.SourceAddrs = s.cfg.Self, s.cfg.Addrs()
			}
		}
	}
	ticket, err := signed.SealTicket(t, s.cfg.Key)
	if err == nil {
		ticket, err = s.cfg.Rights.Carry(ticket, a.grant)
	}
	if err != nil {
		return fmt.Errorf("make a ticket: %w", err)
	}
	to := strings.TrimSuffix(helper.URL, "/") + "/" + string(a.kind) + "/" + a.name + "?ticket=" + url.QueryEscape(ticket)
	wait := max(time.Until(a.until).Truncate(time.Millisecond), 0)
	if wait > 0 {
		to += "&wait=" + wait.String()
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.AddEvent("redirect", trace.WithAttributes(tracing.Peer.String(helper.Node.String()), tracing.Reason.String(h.reason)))
	}
	s.eventOf(ctx, Event{Kind: event.Redirected, Stream: a.name, Peer: helper.Node, Role: a.kind.role(), Client: a.client.String(), Reason: h.reason, Detail: helper.Why})
	if s.cfg.Overflow() == Relay {
		if err := a.visit.rest(); err != nil {
			return err
		}
		asking, cancel := context.WithTimeout(ctx, relayTimeout+wait)
		defer cancel()
		err := s.handOver(asking, w, a, helper, ticket, wait)
		if next := s.another(ctx, h, err); next != nil {
			return s.handOn(ctx, w, a, next)
		}
		if err == nil {
			a.grant.Keep()
		}
		return err
	}
	a.grant.Keep()
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusTemporaryRedirect)
	return nil
}

// another is a helper to try instead of one that was not reached, or nil.
func (s *SFU) another(ctx context.Context, h *handover, err error) *handover {
	if p := problem.Of(err); p == nil || p.Code != problem.HelperUnreachable || len(h.tried) == maxHelpers-1 {
		return nil
	}
	tried := append(slices.Clone(h.tried), h.helper.Node)
	ctx, cancel := context.WithTimeout(ctx, anotherTimeout)
	defer cancel()
	helper, err := s.cfg.Place(ctx, h.need, append(tried, s.cfg.Self))
	if err != nil {
		return nil
	}
	return &handover{helper: helper, reason: h.reason, need: h.need, tried: tried}
}

func notReached(h Helper, why string) error {
	p := problem.New(problem.HelperUnreachable, "this node is full, and the one that has room could not be reached: "+why).Retry(retryNotLive)
	p.Node = h.Node
	return p
}

// session finds the session of a request.
func (s *SFU) session(r *http.Request) (*session, error) {
	id := r.PathValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	if sess := s.sessions[id]; sess != nil {
		return sess, nil
	}
	if _, ended := s.tombs.ids[id]; ended {
		return nil, problem.New(problem.SessionEnded, "the session has ended: start a new one by POST")
	}
	return nil, problem.New(problem.NoSession, "there is no such session here")
}

// patch serves trickled candidates and ICE restarts (RFC 9725, section 4.3).
func (s *SFU) patch(w http.ResponseWriter, r *http.Request) {
	if err := s.trickle(w, r); err != nil {
		s.fail(w, r, err)
	}
}

func (s *SFU) trickle(w http.ResponseWriter, r *http.Request) error {
	sess, err := s.session(r)
	if err != nil {
		return err
	}
	raw, err := body(w, r, typeFragment)
	if err != nil {
		return err
	}
	f, err := sdp.ParseFragment(raw)
	if err != nil {
		return problem.New(problem.BadFragment, err.Error())
	}
	sess.patch.Lock()
	defer sess.patch.Unlock()
	if sess.over {
		return problem.New(problem.SessionEnded, "the session has ended: start a new one by POST")
	}
	restart := f.Ufrag != "" && !sess.offer.Knows(f.Ufrag)
	// A client that trickles may leave If-Match out where its ufrag says which
	// ICE session it means; a restart is for whatever there is ("*").
	if match := r.Header.Get("If-Match"); match != "" && match != "*" && match != sess.etag {
		return problem.New(problem.OldSession, "If-Match is not this session's ETag: the ICE session it meant is over")
	}
	if restart {
		if f.Pwd == "" {
			return problem.New(problem.BadFragment, "a=ice-ufrag without a=ice-pwd")
		}
		ctx, cancel := context.WithTimeout(r.Context(), setupTimeout)
		defer cancel()
		fragment, err := sess.restart(ctx, f)
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", typeFragment)
		w.Header().Set("ETag", sess.etag)
		_, _ = io.WriteString(w, fragment)
		return nil
	}
	sess.addCandidates(f)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// delete ends a session at its client's wish. A client whose connection ended
// first is told the same.
func (s *SFU) delete(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	s.mu.Lock()
	sess := s.sessions[id]
	deleted, ended := s.tombs.ids[id]
	if sess != nil || ended && !deleted {
		s.tombs.deleted(id)
	}
	s.mu.Unlock()
	switch {
	case deleted:
		s.fail(w, r, problem.New(problem.SessionEnded, "the session has been deleted already"))
	case sess != nil:
		sess.end("deleted by the client")
		select {
		case <-sess.done:
		case <-r.Context().Done():
		}
		w.WriteHeader(http.StatusOK)
	case ended:
		w.WriteHeader(http.StatusOK)
	default:
		s.fail(w, r, problem.New(problem.NoSession, "there is no such session here"))
	}
}
