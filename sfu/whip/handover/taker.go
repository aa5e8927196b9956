package handover

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/signed"
	"weir/capacity/tracing"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/proxied"
	"weir/sfu/rights"
	"weir/sfu/sdp"
)

const (
	// arrival bounds the time to read a handover, and to send its outcome.
	arrival = 5 * time.Second
	// maxPeer bounds the handovers of one node that are served at once.
	maxPeer = 64
)

// A Taker serves the handovers of other nodes. Its methods may be called from
// several goroutines.
type Taker struct {
	ctx     context.Context // its end ends all handovers
	self    peer.ID
	handler http.Handler
	within  time.Duration
	log     *slog.Logger

	mu     sync.Mutex
	served map[peer.ID]int // by the sending node
}

// NewTaker makes a Taker for the node self, which accepts no handover once ctx
// has ended. Handler answers the requests of clients, each within the duration
// within plus the time that its client waits for the stream.
func NewTaker(ctx context.Context, self peer.ID, handler http.Handler, within time.Duration, log *slog.Logger) *Taker {
	return &Taker{ctx: ctx, self: self, handler: handler, within: within, log: log, served: map[peer.ID]int{}}
}

// Serve answers a handover from the node from, as if the client itself had come
// with its ticket, and closes signal. Public is the base URL at which clients
// reach this node.
func (t *Taker) Serve(from peer.ID, signal Signal, public string) {
	defer signal.Close()
	_ = signal.SetReadDeadline(time.Now().Add(arrival))
	r := bufio.NewReader(signal)
	m := &pb.Handover{}
	if _, err := frame.Read(r, MaxMessage, m); err != nil {
		t.log.Debug("handover not understood", "peer", from, "err", err)
		return
	}
	w := &answer{header: http.Header{}}
	if leave, ok := t.enter(from); ok {
		defer leave()
		t.answer(from, signal, r, m, public, w)
	} else {
		problem.New(problem.TooManySetups, "too many requests of one node are being served").Retry(time.Second).Write(w)
	}
	_ = signal.SetWriteDeadline(time.Now().Add(arrival))
	_, err := frame.Write(signal, &pb.Outcome{
		Status: uint32(w.status), Body: w.body.Bytes(),
		ContentType: w.header.Get("Content-Type"), Location: w.header.Get("Location"),
		Etag: w.header.Get("ETag"), AcceptPatch: w.header.Get("Accept-Patch"), Links: w.header.Values("Link"),
	})
	if err != nil {
		t.log.Debug("handover not answered", "peer", from, "err", err)
	}
}

// answer has the handler answer m. It ends early if the sending node has gone.
func (t *Taker) answer(from peer.ID, signal Signal, r *bufio.Reader, m *pb.Handover, public string, w *answer) {
	request, err := t.request(from, m, public)
	if err != nil {
		cmp.Or(problem.Of(err), problem.New(problem.BadTicket, err.Error())).Write(w)
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, t.within+time.Duration(m.WaitMs)*time.Millisecond)
	defer cancel()
	_ = signal.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	go func() { // ends with the read deadline below
		defer close(gone)
		_, _ = r.ReadByte() // the sender sends nothing more: a read returns when it has gone
		cancel()
	}()
	t.handler.ServeHTTP(w, proxied.Of(request).Request(request.WithContext(tracing.FromWire(ctx, m.Trace))))
	_ = signal.SetReadDeadline(time.Now())
	<-gone
}

// request returns m as the request that the client would have sent. Only the
// node that holds the lease may present its ticket.
func (t *Taker) request(from peer.ID, m *pb.Handover, public string) (*http.Request, error) {
	if err := capacity.ValidStreamName(m.Stream); err != nil {
		return nil, problem.New(problem.BadStreamName, err.Error())
	}
	ticket, _ := rights.SplitTicket(m.Ticket)
	opened, err := signed.OpenTicket(ticket, t.self, time.Now())
	if err != nil {
		return nil, fmt.Errorf("the ticket is not good here: %w", err)
	}
	if opened.From != from {
		return nil, errors.New("the ticket is another node's")
	}
	base, err := url.Parse(public)
	if err != nil {
		return nil, err
	}
	path := "/whep/"
	if m.Role == pb.Handover_PUBLISH {
		path = "/whip/"
	}
	query := url.Values{"ticket": {m.Ticket}}
	if m.WaitMs > 0 {
		query.Set("wait", (time.Duration(m.WaitMs) * time.Millisecond).String())
	}
	u := &url.URL{Scheme: base.Scheme, Host: base.Host, Path: path + m.Stream, RawQuery: query.Encode()}
	r := &http.Request{
		Method: http.MethodPost, URL: u, Host: base.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/sdp"}}, Body: io.NopCloser(bytes.NewReader(m.Offer)), ContentLength: int64(len(m.Offer)),
	}
	client := proxied.Client{Scheme: base.Scheme, Host: base.Host}
	if at, err := netip.ParseAddrPort(m.Client); err == nil {
		client.Addr = at
	}
	return client.Request(r), nil
}

// enter takes one of a node's places, and reports whether there was one.
func (t *Taker) enter(from peer.ID) (leave func(), ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx.Err() != nil || t.served[from] >= maxPeer {
		return nil, false
	}
	t.served[from]++
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.served[from]--; t.served[from] == 0 {
			delete(t.served, from)
		}
	}, true
}

// An answer records the response of a handler, up to the bounds of a handover.
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
