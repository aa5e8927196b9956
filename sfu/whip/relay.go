package whip

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/scope"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/rights"
	"weir/sfu/sdp"
)

// OverflowProtocol is the name of the protocol by which a request is handed to
// another node, below /weir/<network-id>/; see pb/overflow.proto.
const OverflowProtocol = "overflow/1"

const (
	// MaxHandover bounds each of its messages, in bytes: an offer or an answer,
	// and what goes with it.
	MaxHandover = sdp.MaxBytes + 8<<10
	// maxHeader bounds what is taken over into a header, in bytes.
	maxHeader = 2 << 10
	// handoverRead is how long a handover may take to arrive.
	handoverRead = 5 * time.Second
	// MaxHelpers bounds the helpers that one client is handed to, one after the
	// other, and anotherTimeout the search for the next.
	MaxHelpers     = 3
	anotherTimeout = 3 * time.Second
	// maxHandoversPeer bounds the handovers of one node that are served at once.
	maxHandoversPeer = 64
)

// relay has the helper serve the client of a by itself, and passes its answer
// on. The helper is asked over libp2p, as the peer that granted the lease: the
// URL in its record is for clients.
func (s *Server) relay(ctx context.Context, w http.ResponseWriter, a *request, h Helper, ticket string, wait time.Duration) error {
	asking, span := tracing.Start(ctx, s.tracer, "hand over", trace.SpanKindClient,
		tracing.RPCSystem.String(tracing.System), tracing.RPCMethod.String("overflow/handover"), tracing.Peer.String(h.Node.String()))
	m := &pb.Handover{
		Role: handoverRole(a.kind), Stream: a.name, Ticket: ticket, WaitMs: uint32(wait.Milliseconds()), Offer: a.raw,
		Trace: tracing.ToWire(asking),
	}
	if a.client.Addr.IsValid() {
		m.Client = a.client.Addr.String()
	}
	out, err := s.exchange(asking, h, m)
	problem.Failed(span, err)
	if err == nil && span.IsRecording() {
		span.SetAttributes(tracing.Status.Int(int(out.Status)))
	}
	span.End()
	if err != nil {
		s.log.WarnContext(ctx, "helper not reached", "helper", h.Node, "err", err)
		return notReached(h, problem.Cause(err))
	}
	if out.Status != http.StatusCreated {
		if out.Status < 400 || out.Status > 599 {
			return notReached(h, fmt.Sprintf("it answered with status %d", out.Status))
		}
		p := problem.Parse(int(out.Status), out.ContentType, out.Body)
		if p.Code == problem.BadTicket { // the client has none
			return notReached(h, "it did not take the ticket")
		}
		p.Node = h.Node
		return p
	}
	if err := s.cfg.Gate.CheckURL(scope.Redirect, out.Location); err != nil {
		return notReached(h, "clients must not be sent to the address that it gives")
	}
	header := w.Header()
	header.Set("Content-Type", typeSDP)
	for key, value := range map[string]string{"Location": out.Location, "ETag": out.Etag, "Accept-Patch": out.AcceptPatch} {
		if value != "" {
			header.Set(key, value)
		}
	}
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(out.Body)
	return nil
}

func handoverRole(kind Kind) pb.Handover_Role {
	if kind == WHIP {
		return pb.Handover_PUBLISH
	}
	return pb.Handover_VIEW
}

// exchange asks the helper, within ctx's deadline.
func (s *Server) exchange(ctx context.Context, h Helper, m *pb.Handover) (*pb.Outcome, error) {
	if s.cfg.Handover == nil {
		return nil, errors.New("this node hands nothing over")
	}
	signal, err := s.cfg.Handover(ctx, h.Node, h.Addrs)
	if err != nil {
		return nil, err
	}
	defer signal.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = signal.SetReadDeadline(time.Now())
		_ = signal.SetWriteDeadline(time.Now())
	})
	defer stop()
	out := &pb.Outcome{}
	_, err = frame.Write(signal, m)
	if err == nil {
		_, err = frame.Read(bufio.NewReader(signal), MaxHandover, out)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	}
	for _, word := range []*string{&out.ContentType, &out.Location, &out.Etag, &out.AcceptPatch} {
		if *word = capacity.Printable(*word, maxHeader+1); len(*word) > maxHeader {
			return nil, fmt.Errorf("a header of more than %d bytes", maxHeader)
		}
	}
	return out, nil
}

// TakeOver serves a handover that from asks for, as if the client had come with
// its ticket itself, and closes signal. Clients reach this node at public, a base
// URL.
func (s *Server) TakeOver(from peer.ID, signal Signal, public string) {
	defer signal.Close()
	_ = signal.SetReadDeadline(time.Now().Add(handoverRead))
	r := bufio.NewReader(signal)
	m := &pb.Handover{}
	if _, err := frame.Read(r, MaxHandover, m); err != nil {
		s.log.Debug("handover not understood", "peer", from, "err", err)
		return
	}
	answer := &answer{header: http.Header{}}
	if leave, ok := s.enterHandover(from); ok {
		defer leave()
		s.takeOver(from, signal, r, m, public, answer)
	} else {
		problem.New(problem.TooManySetups, "too many requests of one node are being served").Retry(time.Second).Write(answer)
	}
	_ = signal.SetWriteDeadline(time.Now().Add(handoverRead))
	_, err := frame.Write(signal, &pb.Outcome{
		Status: uint32(answer.status), Body: answer.body.Bytes(),
		ContentType: answer.header.Get("Content-Type"), Location: answer.header.Get("Location"),
		Etag: answer.header.Get("ETag"), AcceptPatch: answer.header.Get("Accept-Patch"),
	})
	if err != nil {
		s.log.Debug("handover not answered", "peer", from, "err", err)
	}
}

// takeOver lets the HTTP handler answer m. It ends when the node that asked has
// gone, too.
func (s *Server) takeOver(from peer.ID, signal Signal, r *bufio.Reader, m *pb.Handover, public string, answer *answer) {
	request, err := s.handedOver(from, m, public)
	if err != nil {
		cmp.Or(problem.Of(err), problem.New(problem.BadTicket, err.Error())).Write(answer)
		return
	}
	ctx, cancel := context.WithTimeout(s.ctx, relayTimeout+time.Duration(m.WaitMs)*time.Millisecond)
	defer cancel()
	_ = signal.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	go func() { // ends with the read deadline below
		defer close(gone)
		_, _ = r.ReadByte() // there is nothing more to say
		cancel()
	}()
	s.Handler().ServeHTTP(answer, proxied.Of(request).Request(request.WithContext(tracing.FromWire(ctx, m.Trace))))
	_ = signal.SetReadDeadline(time.Now())
	<-gone
}

// handedOver is m as the request that the client would have sent. Only the node
// that holds the lease may bring its ticket.
func (s *Server) handedOver(from peer.ID, m *pb.Handover, public string) (*http.Request, error) {
	if err := capacity.ValidStreamName(m.Stream); err != nil {
		return nil, problem.New(problem.BadStreamName, err.Error())
	}
	ticket, _ := rights.SplitTicket(m.Ticket)
	t, err := signed.OpenTicket(ticket, s.cfg.Self, time.Now())
	if err != nil {
		return nil, fmt.Errorf("the ticket is not good here: %w", err)
	}
	if t.From != from {
		return nil, errors.New("the ticket is another node's")
	}
	base, err := url.Parse(public)
	if err != nil {
		return nil, err
	}
	kind := WHEP
	if m.Role == pb.Handover_PUBLISH {
		kind = WHIP
	}
	query := url.Values{"ticket": {m.Ticket}}
	if m.WaitMs > 0 {
		query.Set("wait", (time.Duration(m.WaitMs) * time.Millisecond).String())
	}
	u := &url.URL{Scheme: base.Scheme, Host: base.Host, Path: "/" + string(kind) + "/" + m.Stream, RawQuery: query.Encode()}
	r := &http.Request{
		Method: http.MethodPost, URL: u, Host: base.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {typeSDP}}, Body: io.NopCloser(bytes.NewReader(m.Offer)), ContentLength: int64(len(m.Offer)),
	}
	client := proxied.Client{Scheme: base.Scheme, Host: base.Host}
	if at, err := netip.ParseAddrPort(m.Client); err == nil {
		client.Addr = at
	}
	return client.Request(r), nil
}

// enterHandover takes one of a node's places, or reports that there is none.
func (s *Server) enterHandover(from peer.ID) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.handovers[from] >= maxHandoversPeer {
		return nil, false
	}
	s.handovers[from]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.handovers[from]--; s.handovers[from] == 0 {
			delete(s.handovers, from)
		}
	}, true
}

// An answer keeps what a handler answers, up to what a handover has room for.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	if a.body.Len()+len(b) > sdp.MaxBytes {
		return 0, fmt.Errorf("an answer of more than %d bytes", sdp.MaxBytes)
	}
	return a.body.Write(b)
}
