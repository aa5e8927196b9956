package sfu

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/webrtc/v4"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/frame"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/meter"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
	"weir/sfu/tasks"
	"weir/sfu/tree"
)

const (
	// heartbeat is the pause between two pings, and linkDead how long a link
	// may say nothing: five of them.
	heartbeat = 200 * time.Millisecond
	linkDead  = 5 * heartbeat
	// linkLinger is how long a link without pulls is kept by who opened it.
	linkLinger = 10 * time.Second
	// linkConsent is how long a link may go without an authenticated
	// connectivity check; one comes every iceKeepalive. pion takes any packet
	// from the peer's address for a sign of life.
	linkConsent = 15 * time.Second
	// linkSetup bounds the time from opening to media flowing.
	linkSetup = 10 * time.Second
	// maxMessage bounds one signalling message, in bytes: an offer of maxSlots
	// sections takes about 60 KiB.
	maxMessage = 256 << 10
	// maxSlots bounds the media sections that one end sends in.
	maxSlots = 64
	// linkLines bounds the lines of one description.
	linkLines = 2 * maxSlots * 80
	// maxTracks bounds the tracks of one stream.
	maxTracks = sdp.MaxSections
	// slotRest is how long a media section is left alone before another track
	// takes it, so that late packets of the old one are not taken for the new.
	slotRest = 2 * time.Second
	// maxOffers is how often a section is asked for before the peer is given up.
	maxOffers = 4
	// sendQueue is how many messages wait for a peer that reads slowly. One
	// more, and the link is given up.
	sendQueue = 256
)

// linkLimits are the bounds of a peer's description: each end sends in maxSlots
// sections.
var linkLimits = sdp.Limits{Bytes: maxMessage, Sections: 2 * maxSlots, Lines: linkLines}

// Reasons that end a pull, as they travel.
const (
	reasonLink    = "link"    // the link broke
	reasonCrossed = "crossed" // both ends opened a link at once
)

// A Link connects this node with one other by a single PeerConnection, over
// which either end may pull streams from the other. Its signalling is
// described in pb/cascade.proto.
//
// Whoever opened the link makes the offers. A track travels in a slot: a media
// section that, once the track has gone, carries the next one of the same
// codec without another negotiation.
type Link struct {
	Peer   peer.ID
	sfu    *SFU
	tasks  tasks.Group // readers, the writer, the negotiator, branches
	dialer bool
	pc     *rtc.Transport
	signal Signal
	opened time.Time
	rtt    atomic.Int64 // of the signalling, ns

	ctx    context.Context // ends with done
	cancel context.CancelFunc

	queue       chan *pb.Message
	renegotiate chan struct{}        // dialer: there is something to offer
	remote      chan *pb.Description // the other end's offers, or answers
	connected   chan struct{}        // closed when media can flow
	connectOnce sync.Once
	opening     trace.Span    // until connected is closed, or the link has ended
	done        chan struct{} // closed when the link has ended
	doneOnce    sync.Once
	why         string // set before done is closed

	mu       sync.Mutex
	ended    bool
	lastPull uint64
	inbounds map[uint64]*inbound // what we pull, by our number
	branches map[uint64]*branch  // what the peer pulls, by its number
	slotsIn  map[string]*slotIn  // by mid
	slotsOut []*slotOut
	offering bool      // an offer of ours is to be made, or out
	idle     time.Time // since when nothing is pulled
}

// slotIn is a media section that the peer sends in.
type slotIn struct {
	remote atomic.Pointer[rtc.RemoteTrack] // nil until it is there
	next   *forward.UpTrack                // link.mu's: what is carried in it now
}

// slotOut is a media section that we send in.
type slotOut struct {
	sender *webrtc.RTPSender
	out    *rtc.LocalTrack // nil: free since freed
	last   *rtc.LocalTrack // that was sent in it, if it is free
	branch *branch
	mime   string
	mid    string // "" until negotiated
	freed  time.Time
}

// link returns the link to carrier.Node, opening one if there is none.
func (s *SFU) link(ctx context.Context, carrier tree.Source) (*Link, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			return nil, problem.ErrClosing
		}
		if l := s.links[carrier.Node]; l != nil {
			s.mu.Unlock()
			return l, nil
		}
		wait := s.dialing[carrier.Node]
		if wait == nil {
			wait = make(chan struct{})
			s.dialing[carrier.Node] = wait
			s.mu.Unlock()
			return s.dial(ctx, carrier, wait)
		}
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *SFU) dial(ctx context.Context, carrier tree.Source, done chan struct{}) (*Link, error) {
	ctx, span := tracing.Start(ctx, s.tracer, "open link", trace.SpanKindInternal, tracing.Peer.String(carrier.Node.String()))
	began := time.Now()
	signal, err := s.cfg.Dial(ctx, carrier.Node, carrier.Addrs)
	var l *Link
	if err == nil {
		l, err = s.newLink(carrier.Node, signal, true, span)
	}
	s.mu.Lock()
	delete(s.dialing, carrier.Node)
	close(done)
	switch {
	case err != nil:
	case s.closed:
		err = problem.ErrClosing
	case s.links[carrier.Node] != nil: // accepted meanwhile
		err = tree.ErrCrossed
	default:
		l.opened = began
		s.links[carrier.Node] = l
		s.wg.Go(l.run)
	}
	s.mu.Unlock()
	if err != nil {
		if l != nil {
			l.discard()
		}
		if signal != nil {
			_ = signal.Close()
		}
		problem.Failed(span, err)
		span.End()
		return nil, fmt.Errorf("open a cascade link to %s: %w", carrier.Node, err)
	}
	return l, nil
}

// Accept serves a cascade link that node opened, until it ends. The caller's
// goroutine may be reused afterwards; signal is closed.
func (s *SFU) Accept(node peer.ID, signal Signal) {
	l, err := s.newLink(node, signal, false, noop.Span{})
	if err != nil {
		s.log.Warn("cascade link not accepted", "peer", node, "err", err)
		_ = signal.Close()
		return
	}
	s.mu.Lock()
	old := s.links[node]
	// Of two links opened at once, the one that the lower ID opened stays. A
	// link that was up already is dead to the peer, or it would not open another.
	crossed := s.dialing[node] != nil || old != nil && old.dialer && time.Since(old.opened) < linkDead
	refuse := s.closed || crossed && s.cfg.Self < node
	if !refuse {
		s.links[node] = l
		close(s.arrived)
		s.arrived = make(chan struct{})
		s.wg.Go(l.run)
	}
	s.mu.Unlock()
	if refuse {
		_ = signal.SetWriteDeadline(time.Now().Add(linkDead))
		_ = writeMessage(signal, &pb.Message{Body: &pb.Message_Refused{Refused: &pb.Refused{Reason: reasonCrossed}}})
		_ = signal.Close()
		l.discard()
		return
	}
	if old != nil {
		old.fail(reasonCrossed)
	}
	<-l.done
}

func (s *SFU) newLink(node peer.ID, signal Signal, dialer bool, opening trace.Span) (*Link, error) {
	media, err := rtc.LinkMedia()
	if err != nil {
		return nil, err
	}
	pc, err := s.engine.Link(media)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(s.ctx)
	l := &Link{
		Peer: node, sfu: s, dialer: dialer, pc: pc, ctx: ctx, cancel: cancel, signal: signal, opened: time.Now(), opening: opening,
		queue:       make(chan *pb.Message, sendQueue),
		renegotiate: make(chan struct{}, 1),
		remote:      make(chan *pb.Description, 1),
		connected:   make(chan struct{}),
		done:        make(chan struct{}),
		inbounds:    map[uint64]*inbound{},
		branches:    map[uint64]*branch{},
		slotsIn:     map[string]*slotIn{},
		idle:        time.Now(),
	}
	pc.OnTrack(l.onTrack)
	pc.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			l.connectOnce.Do(func() {
				close(l.connected)
				l.opening.End()
				l.tasks.Start(l.reachable)
				s.event(Event{Kind: event.LinkOpened, Peer: l.Peer, Elapsed: milliseconds(time.Since(l.opened))})
			})
		case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
			l.fail("media connection " + state.String())
		}
	})
	if dialer {
		// One section of each kind at once, so that the first pull need not wait
		// to learn the stream's tracks.
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
			if err := l.offerLine(kind); err != nil {
				l.discard()
				return nil, err
			}
		}
		l.offering = true
		l.renegotiate <- struct{}{}
	}
	return l, nil
}

// discard closes a link that was never run.
func (l *Link) discard() {
	l.cancel()
	_ = l.pc.GracefulClose()
}

// fail ends the link. It does not wait.
func (l *Link) fail(why string) {
	l.doneOnce.Do(func() {
		l.why = why
		close(l.done)
		l.cancel()
	})
}

// Why a link ends in good order; anything else is a loss.
const (
	whyClosing = "this node is closing"
	whyUnused  = "nothing is pulled over it"
	whyClosed  = "the other node has closed it"
)

// lost is the word for links that do not end in good order.
func (l *Link) lost() string {
	switch l.why {
	case whyClosing, whyUnused, whyClosed, reasonCrossed, "media connection " + webrtc.PeerConnectionStateClosed.String():
		return ""
	}
	return "lost"
}

// run owns the link: when it returns, nothing of it is left.
func (l *Link) run() {
	negotiated := make(chan struct{})
	l.tasks.Start(l.read)
	l.tasks.Start(l.write)
	l.tasks.Start(func() {
		defer close(negotiated)
		l.negotiate()
	})
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	setup := time.NewTimer(linkSetup)
	defer setup.Stop()
	var (
		coming delivery
		looked time.Time
	)
loop:
	for {
		select {
		case <-l.done:
			break loop
		case <-l.sfu.ctx.Done():
			l.fail(whyClosing)
		case now := <-beat.C:
			l.send(&pb.Message{Body: &pb.Message_Ping{Ping: &pb.Ping{Time: now.UnixNano()}}})
			if l.dialer && l.unused(now) > linkLinger {
				l.fail(whyUnused)
			}
			if now.Sub(looked) >= deliveryEvery {
				looked = now
				l.judge(now, &coming)
				if silence, ok := l.pc.Silence(now); ok && silence > linkConsent {
					l.fail(fmt.Sprintf("no connectivity check for %v", linkConsent))
				}
			}
		case <-setup.C:
			select {
			case <-l.connected:
			default:
				l.fail(fmt.Sprintf("no media connection within %v", linkSetup))
			}
		}
	}

	select {
	case <-l.connected:
	default:
		tracing.Fail(l.opening, "never_connected")
		l.opening.End()
	}
	l.sfu.mu.Lock()
	if l.sfu.links[l.Peer] == l {
		delete(l.sfu.links, l.Peer)
	}
	l.sfu.mu.Unlock()
	l.tasks.Shut()
	l.mu.Lock()
	l.ended = true
	inbounds, branches := l.inbounds, l.branches
	l.inbounds, l.branches = map[uint64]*inbound{}, map[uint64]*branch{}
	l.mu.Unlock()
	for _, b := range branches {
		b.close()
	}
	reason := reasonLink
	if l.why == reasonCrossed {
		reason = reasonCrossed
	}
	for _, in := range inbounds {
		in.End(reason)
	}
	_ = l.signal.Close()
	// A description that is set while the connection closes would make pion
	// start an ICE agent that nobody ends.
	<-negotiated
	_ = l.pc.GracefulClose()
	l.tasks.Wait()
	l.sfu.event(Event{Kind: event.LinkClosed, Peer: l.Peer, Reason: l.lost(), Detail: l.why, Elapsed: milliseconds(time.Since(l.opened))})
}

// unused is how long nothing has been pulled either way.
func (l *Link) unused(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.inbounds) > 0 || len(l.branches) > 0 {
		l.idle = now
	}
	return now.Sub(l.idle)
}

// Signalling.

func (l *Link) send(m *pb.Message) {
	select {
	case l.queue <- m:
	default:
		l.fail("the peer does not read what we send")
	}
}

func (l *Link) write() {
	for {
		select {
		case m := <-l.queue:
			_ = l.signal.SetWriteDeadline(time.Now().Add(linkDead))
			if writeMessage(l.signal, m) != nil {
				// The peer may have said why before it closed: that is the reader's to
				// find, or that there is nothing.
				return
			}
		case <-l.done:
			return
		}
	}
}

func writeMessage(w io.Writer, m proto.Message) error {
	_, err := frame.Write(w, m)
	return err
}

func readMessage(r *bufio.Reader) (*pb.Message, error) {
	m := &pb.Message{}
	return m, readInto(r, maxMessage, m)
}

// readInto reads a message of at most so many bytes.
func readInto(r *bufio.Reader, most int, m proto.Message) error {
	_, err := frame.Read(r, most, m)
	return err
}

func (l *Link) read() {
	r := bufio.NewReader(l.signal)
	for {
		_ = l.signal.SetReadDeadline(time.Now().Add(linkDead))
		m, err := readMessage(r)
		if err != nil {
			if errors.Is(err, io.EOF) {
				l.fail(whyClosed)
			} else {
				l.fail("signalling: " + err.Error())
			}
			return
		}
		if err := l.handle(m); err != nil {
			l.fail(err.Error())
			return
		}
	}
}

// handle acts on one message. It must not block: heartbeats are answered from
// here. An error ends the link.
func (l *Link) handle(m *pb.Message) error {
	switch m := m.Body.(type) {
	case *pb.Message_Ping:
		l.send(&pb.Message{Body: &pb.Message_Pong{Pong: m.Ping}})
	case *pb.Message_Pong:
		if rtt := time.Since(time.Unix(0, m.Pong.Time)); rtt >= 0 && rtt < linkDead {
			l.rtt.Store(int64(rtt))
			l.sfu.cfg.Measured(meter.RoundTrip, rtt)
		}
	case *pb.Message_Subscribe:
		l.serve(m.Subscribe)
	case *pb.Message_Subscribed:
		if in := l.inbound(m.Subscribed.Pull); in != nil {
			return in.accepted(m.Subscribed)
		}
	case *pb.Message_Refused:
		if m.Refused.Reason == reasonCrossed {
			l.fail(reasonCrossed)
		} else if in := l.inbound(m.Refused.Pull); in != nil {
			in.refused(&capacity.Refusal{Reason: plain(m.Refused.Reason), Detail: plain(m.Refused.Detail)})
		}
	case *pb.Message_Start:
		if b := l.branch(m.Start.Pull); b != nil {
			b.begin()
		}
	case *pb.Message_Unsubscribe:
		if b := l.branch(m.Unsubscribe.Pull); b != nil {
			b.close()
		}
	case *pb.Message_Ended:
		if in := l.inbound(m.Ended.Pull); in != nil {
			in.End(plain(m.Ended.Reason))
		}
	case *pb.Message_Path:
		if in := l.inbound(m.Path.Pull); in != nil {
			path, err := l.parsePath(m.Path.Path)
			if err != nil {
				return err
			}
			in.move(path)
		}
	case *pb.Message_Offer:
		if l.dialer {
			return errors.New("an offer from who did not open the link")
		}
		return l.described(m.Offer)
	case *pb.Message_Answer:
		if !l.dialer {
			return errors.New("an answer nobody asked for")
		}
		return l.described(m.Answer)
	}
	return nil
}

func (l *Link) described(d *pb.Description) error {
	select {
	case l.remote <- d:
		return nil
	default:
		return errors.New("a description before the last one was answered")
	}
}

// plain bounds a peer's words, and leaves what can be printed.
func plain(s string) string { return capacity.Printable(s, 200) }

// parsePath reads a path that the peer is the last of.
func (l *Link) parsePath(raw [][]byte) ([]peer.ID, error) {
	if len(raw) == 0 || len(raw) > capacity.MaxDepth {
		return nil, fmt.Errorf("a path of %d nodes", len(raw))
	}
	path := make([]peer.ID, len(raw))
	for i, b := range raw {
		id, err := peer.IDFromBytes(b)
		if err != nil {
			return nil, fmt.Errorf("path: %w", err)
		}
		path[i] = id
	}
	if path[len(path)-1] != l.Peer {
		return nil, errors.New("a path that does not end at its sender")
	}
	return path, nil
}

func (l *Link) inbound(pull uint64) *inbound {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inbounds[pull]
}

func (l *Link) branch(pull uint64) *branch {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.branches[pull]
}

// LinkStatus is a link as seen from this end.
type LinkStatus struct {
	Peer       peer.ID   `json:"peer"`
	State      string    `json:"state"`
	Dialer     bool      `json:"dialer"` // we opened it
	RTT        float64   `json:"rtt_ms"`
	Opened     time.Time `json:"opened"`
	PullsIn    []string  `json:"pulls_in"`  // streams that come
	PullsOut   []string  `json:"pulls_out"` // streams that go
	PacketsIn  int64     `json:"packets_in"`
	PacketsOut int64     `json:"packets_out"`
	BytesIn    int64     `json:"bytes_in"`  // payload
	BytesOut   int64     `json:"bytes_out"` // RTP
	Lost       int64     `json:"lost"`      // packets that did not come
}

// Links lists this node's links.
func (s *SFU) Links() []LinkStatus {
	s.mu.Lock()
	links := make([]*Link, 0, len(s.links))
	for _, l := range s.links {
		links = append(links, l)
	}
	s.mu.Unlock()
	all := make([]LinkStatus, 0, len(links))
	for _, l := range links {
		all = append(all, l.status())
	}
	slices.SortFunc(all, func(a, b LinkStatus) int { return strings.Compare(string(a.Peer), string(b.Peer)) })
	return all
}

func (l *Link) status() LinkStatus {
	st := LinkStatus{
		Peer: l.Peer, State: l.pc.ConnectionState().String(), Dialer: l.dialer, Opened: l.opened,
		RTT: milliseconds(time.Duration(l.rtt.Load())), PullsIn: []string{}, PullsOut: []string{},
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.inbounds {
		st.PullsIn = append(st.PullsIn, in.stream)
		for _, f := range in.feeds {
			packets, bytes := f.track.Received()
			st.PacketsIn += packets
			st.BytesIn += bytes
			st.Lost += f.up.Lost()
		}
	}
	for _, b := range l.branches {
		st.PullsOut = append(st.PullsOut, b.stream.Name)
		for _, o := range b.outs {
			sent := o.Sent()
			st.PacketsOut += sent.Packets
			st.BytesOut += sent.Bytes
		}
	}
	slices.Sort(st.PullsIn)
	slices.Sort(st.PullsOut)
	return st
}

// awaitLink waits a moment for the link that node has opened to us.
func (s *SFU) awaitLink(node peer.ID) {
	patience := time.NewTimer(linkDead)
	defer patience.Stop()
	for {
		s.mu.Lock()
		there, arrived := s.links[node] != nil, s.arrived
		s.mu.Unlock()
		if there {
			return
		}
		select {
		case <-arrived:
		case <-patience.C:
			return
		case <-s.ctx.Done():
			return
		}
	}
}

// subscribe pulls a stream from a node.
func (s *SFU) subscribe(ctx context.Context, from tree.Source, stream string) (tree.Upstream, error) {
	link, err := s.link(ctx, from)
	if err != nil {
		return nil, err
	}
	in, err := link.subscribe(ctx, stream, from.Lease)
	if err != nil {
		return nil, err // no nil *inbound in an interface
	}
	return in, nil
}
