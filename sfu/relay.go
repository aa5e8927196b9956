package sfu

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
	"weir/sfu/tree"
)

// An inbound is one stream that we pull over a link.
type inbound struct {
	link   *Link
	pull   uint64
	stream string

	result chan error     // how the subscription was answered
	moved  chan []peer.ID // the sender's new path; the last one counts
	over   chan struct{}  // closed when the pull has ended
	once   sync.Once      //
	why    string         // set before over is closed
	path   []peer.ID      // to the sender; set before result
	offers int            // negotiator's: how often a section was asked for in vain

	// The rest belongs to link.mu.
	described []*pb.Track
	mids      map[string]string
	feeds     map[string]*feed
	started   bool
}

// A feed is how one track of an inbound reaches its Track.
type feed struct {
	link  *Link
	track *forward.Track
	up    *forward.UpTrack
	slot  atomic.Pointer[slotIn]
}

// RequestKeyframe implements forward.Receiver.
func (f *feed) RequestKeyframe() bool {
	slot := f.slot.Load()
	if slot == nil {
		return false
	}
	remote := slot.remote.Load()
	return remote != nil && f.link.pc.RequestKeyframe(remote.SSRC())
}

// subscribe asks the peer for stream. The lease is the peer's, and may be
// empty. The error is a [capacity.Refusal] if the peer said no.
func (l *Link) subscribe(ctx context.Context, stream, lease string) (in *inbound, err error) {
	ctx, span := tracing.Start(ctx, l.sfu.tracer, "subscribe", trace.SpanKindClient,
		tracing.RPCSystem.String(tracing.System), tracing.RPCMethod.String("cascade/subscribe"), tracing.Peer.String(l.Peer.String()), tracing.Stream.String(stream))
	defer func() { problem.Failed(span, err); span.End() }()
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return nil, tree.ErrGone
	}
	l.lastPull++
	in = &inbound{
		link: l, pull: l.lastPull, stream: stream,
		result: make(chan error, 1), moved: make(chan []peer.ID, 1), over: make(chan struct{}),
		mids: map[string]string{},
	}
	l.inbounds[in.pull] = in
	l.mu.Unlock()
	l.send(&pb.Message{Body: &pb.Message_Subscribe{Subscribe: &pb.Subscribe{Pull: in.pull, Stream: stream, Lease: lease, Trace: tracing.ToWire(ctx)}}})

	select {
	case err = <-in.result:
		if err == nil && slices.Contains(in.path, l.sfu.cfg.Self) {
			err = ErrLoop
		}
	case <-in.over:
		err = tree.ErrGone
		if in.Reason() == reasonCrossed {
			err = tree.ErrCrossed
		}
	case <-ctx.Done():
		err = fmt.Errorf("%s did not answer a subscription: %w", l.Peer, ctx.Err())
	}
	if err != nil {
		in.Unsubscribe()
		return nil, err
	}
	return in, nil
}

// accepted takes the peer's answer. An error ends the link: the peer does not
// keep to the protocol.
func (in *inbound) accepted(m *pb.Subscribed) error {
	if len(m.Tracks) == 0 || len(m.Tracks) > maxTracks {
		return fmt.Errorf("a stream of %d tracks", len(m.Tracks))
	}
	path, err := in.link.parsePath(m.Path)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, t := range m.Tracks {
		if !sdp.IsForwardable(t.Mime) || t.Clock == 0 || t.Channels > 8 || len(t.Fmtp) > sdp.MaxFmtp || len(t.Id) > 32 || seen[t.Id] {
			return fmt.Errorf("a track %q of codec %q", plain(t.Id), plain(t.Mime))
		}
		seen[t.Id] = true
	}

	l := in.link
	l.mu.Lock()
	if in.described != nil {
		l.mu.Unlock()
		return errors.New("a subscription answered twice")
	}
	in.path, in.described = path, m.Tracks
	unplaced := false
	for _, t := range m.Tracks {
		if t.Mid != "" {
			in.mids[t.Id] = plain(t.Mid)
		} else {
			unplaced = true
		}
	}
	ask := unplaced && !l.offering
	l.mu.Unlock()
	if ask {
		l.wantOffer()
	}
	in.result <- nil
	return nil
}

func (in *inbound) refused(err error) {
	select {
	case in.result <- err:
	default:
		in.End(err.Error())
	}
}

// Tracks makes tracks as the sender described them.
func (in *inbound) Tracks() []*forward.Track {
	in.link.mu.Lock()
	defer in.link.mu.Unlock()
	var tracks []*forward.Track
	for _, t := range in.described {
		tracks = append(tracks, &forward.Track{ID: t.Id, Codec: forward.Codec{
			MimeType: t.Mime, ClockRate: t.Clock, Channels: uint16(t.Channels), Fmtp: t.Fmtp,
		}})
	}
	return tracks
}

// Continues reports whether the sender's tracks can go on as tracks.
func (in *inbound) Continues(tracks []*forward.Track) bool {
	return slices.EqualFunc(in.Tracks(), tracks, func(a, b *forward.Track) bool {
		return a.ID == b.ID && a.Codec.MimeType == b.Codec.MimeType && a.Codec.ClockRate == b.Codec.ClockRate
	})
}

// connect makes the pull the source of tracks, which are as newTracks made
// them, and has the sender start.
func (in *inbound) Connect(tracks []*forward.Track) {
	l := in.link
	feeds := map[string]*feed{}
	for _, t := range tracks {
		f := &feed{link: l, track: t}
		f.up = t.Attach(f)
		feeds[t.ID] = f
	}
	l.mu.Lock()
	in.feeds = feeds
	l.mu.Unlock()
	in.wire()
}

// assign notes that section mid carries track. It is called by the negotiator.
func (in *inbound) assign(track, mid string) {
	in.link.mu.Lock()
	known := slices.ContainsFunc(in.described, func(t *pb.Track) bool { return t.Id == track })
	if known && in.mids[track] == "" {
		in.mids[track] = plain(mid)
	}
	in.link.mu.Unlock()
	in.wire()
}

// wire joins tracks and sections as far as both are known, and has the sender
// start when all are.
func (in *inbound) wire() {
	l := in.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if in.started || in.feeds == nil {
		return
	}
	for id, f := range in.feeds {
		mid := in.mids[id]
		if mid == "" {
			return
		}
		if f.slot.Load() != nil {
			continue
		}
		slot := l.slot(mid)
		slot.next = f.up
		f.slot.Store(slot)
		if remote := slot.remote.Load(); remote != nil {
			remote.Assign(slot.next)
		}
	}
	in.started = true
	l.send(&pb.Message{Body: &pb.Message_Start{Start: &pb.Start{Pull: in.pull}}})
}

func (in *inbound) move(path []peer.ID) {
	for {
		select {
		case in.moved <- path:
			return
		default:
		}
		select {
		case <-in.moved:
		default:
		}
	}
}

// Unsubscribe ends the pull by our will.
func (in *inbound) Unsubscribe() {
	in.link.send(&pb.Message{Body: &pb.Message_Unsubscribe{Unsubscribe: &pb.Unsubscribe{Pull: in.pull}}})
	in.End("unsubscribed")
}

// end notes that the pull is over, and why.
func (in *inbound) End(why string) {
	in.once.Do(func() {
		in.why = why
		l := in.link
		l.mu.Lock()
		delete(l.inbounds, in.pull)
		for _, f := range in.feeds {
			if slot := f.slot.Load(); slot != nil && slot.next == f.up {
				slot.next = nil
				if remote := slot.remote.Load(); remote != nil {
					remote.Assign(nil)
				}
			}
			f.up.Close()
			l.sfu.linksLost.Add(max(0, f.up.Lost()))
		}
		l.mu.Unlock()
		close(in.over)
	})
}

// Peer is the node that the stream is pulled from.
func (in *inbound) Peer() peer.ID { return in.link.Peer }

// Path is to that node, origin first.
func (in *inbound) Path() []peer.ID { return slices.Clone(in.path) }

// RTT is to that node, by the signalling.
func (in *inbound) RTT() time.Duration { return time.Duration(in.link.rtt.Load()) }

// Moved has the node's path when that changes; the last one counts.
func (in *inbound) Moved() <-chan []peer.ID { return in.moved }

// Over is closed when the pull has ended.
func (in *inbound) Over() <-chan struct{} { return in.over }

// Reason is why the pull ended. Only after Over is closed.
func (in *inbound) Reason() string { return in.why }

// A branch is one stream that the peer pulls from us.
type branch struct {
	link    *Link
	pull    uint64
	stream  *tree.Stream
	outs    []*rtc.LocalTrack
	slots   []*slotOut
	release func() // of the stream
	entry   string // in the ledger

	done chan struct{}
	once sync.Once
}

// serve answers a subscription. It runs on the link's reader and does not
// block.
func (l *Link) serve(req *pb.Subscribe) {
	_, span := tracing.Start(tracing.FromWire(context.Background(), req.Trace), l.sfu.tracer, "subscribe", trace.SpanKindServer,
		tracing.RPCSystem.String(tracing.System), tracing.RPCMethod.String("cascade/subscribe"), tracing.Peer.String(l.Peer.String()))
	defer span.End()
	b, err := l.newBranch(req)
	if err != nil {
		problem.Failed(span, err)
		var r *capacity.Refusal
		if !errors.As(err, &r) {
			r = &capacity.Refusal{Reason: "error", Detail: err.Error()}
		}
		l.send(&pb.Message{Body: &pb.Message_Refused{Refused: &pb.Refused{Pull: req.Pull, Reason: r.Reason, Detail: r.Detail}}})
		return
	}
	if span.IsRecording() {
		span.SetAttributes(tracing.Stream.String(b.stream.Name))
	}
	answer := &pb.Subscribed{Pull: b.pull}
	for _, id := range b.stream.Path() {
		answer.Path = append(answer.Path, []byte(id))
	}
	waiting := false
	l.mu.Lock()
	for i, o := range b.outs {
		c := o.Track.Codec
		answer.Tracks = append(answer.Tracks, &pb.Track{
			Id: o.Track.ID, Mime: c.MimeType, Clock: c.ClockRate, Channels: uint32(c.Channels), Fmtp: c.Fmtp, Mid: b.slots[i].mid,
		})
		waiting = waiting || b.slots[i].mid == ""
	}
	l.mu.Unlock()
	l.send(&pb.Message{Body: &pb.Message_Subscribed{Subscribed: answer}})
	if waiting {
		l.wantOffer()
	}
	l.tasks.Start(b.watch)
}

func (l *Link) newBranch(req *pb.Subscribe) (*branch, error) {
	s := l.sfu
	if err := capacity.ValidStreamName(req.Stream); err != nil {
		return nil, err
	}
	st := s.tree.Get(req.Stream)
	if st == nil {
		return nil, &capacity.Refusal{Reason: "not-here", Detail: "this node does not carry the stream"}
	}
	path := st.Path()
	if slices.Contains(path, l.Peer) {
		return nil, &capacity.Refusal{Reason: tree.Loop, Detail: "the stream comes here by way of you"}
	}
	if most := s.cfg.Depth(); len(path) > most {
		return nil, &capacity.Refusal{Reason: "depth", Detail: fmt.Sprintf("%d links from the origin, at most %d are allowed", len(path), most)}
	}
	if n, most := len(st.Children()), s.cfg.Fanout(); most > 0 && n >= most {
		return nil, &capacity.Refusal{Reason: "fanout", Detail: fmt.Sprintf("%d of %d pulls of this stream are taken", n, most)}
	}
	b := &branch{link: l, pull: req.Pull, stream: st, done: make(chan struct{})}

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, tree.ErrGone
	}
	if l.branches[req.Pull] != nil {
		return nil, &capacity.Refusal{Reason: "pull", Detail: "that number is in use"}
	}
	if len(l.slotsOut)+len(st.Tracks) > maxSlots {
		return nil, &capacity.Refusal{Reason: "slots", Detail: fmt.Sprintf("%d tracks are the most that one link carries", maxSlots)}
	}
	now := time.Now()
	b.entry = fmt.Sprintf("pull/%s/%d/%d", l.Peer, l.opened.UnixNano(), req.Pull)
	if lease, err := s.cfg.Ledger.Claim(now, l.Peer, req.Lease); err == nil {
		b.entry = lease.ID
	} else if err := s.cfg.Ledger.Admit(now, b.entry, st.Need(capacity.Cascade)); err != nil {
		return nil, err
	}
	release, ok := st.Use(b, false)
	if !ok {
		s.cfg.Ledger.End(b.entry)
		return nil, &capacity.Refusal{Reason: "not-here", Detail: "the stream has just ended"}
	}
	b.release = release
	for _, t := range st.Tracks {
		o := l.pc.NewTrack(t, st.Name)
		o.Relay = true
		b.outs = append(b.outs, o)
		b.slots = append(b.slots, l.takeSlot(b, o, now))
	}
	l.branches[b.pull] = b
	return b, nil
}

// takeSlot finds a section for o that has rested, or notes that one is wanted.
// Called with mu held.
func (l *Link) takeSlot(b *branch, o *rtc.LocalTrack, now time.Time) *slotOut {
	for _, s := range l.slotsOut {
		if s.out == nil && s.mid != "" && s.mime == o.Track.Codec.MimeType && now.Sub(s.freed) > slotRest && s.sender.ReplaceTrack(o) == nil {
			o.Follow(s.last.DownTrack)
			s.out, s.branch, s.last = o, b, nil
			return s
		}
	}
	s := &slotOut{out: o, branch: b, mime: o.Track.Codec.MimeType}
	l.slotsOut = append(l.slotsOut, s)
	return s
}

// begin sends media: the peer is ready.
func (b *branch) begin() {
	select {
	case <-b.done:
		return
	default:
	}
	for _, o := range b.outs {
		o.Track.Add(o.DownTrack)
	}
}

// watch tells the peer when the stream has ended here.
func (b *branch) watch() {
	select {
	case <-b.stream.Over():
		b.link.send(&pb.Message{Body: &pb.Message_Ended{Ended: &pb.Ended{Pull: b.pull, Reason: b.stream.Why()}}})
		b.close()
	case <-b.done:
	}
}

func (b *branch) TellPath(path []peer.ID) {
	m := &pb.Path{Pull: b.pull}
	for _, id := range path {
		m.Path = append(m.Path, []byte(id))
	}
	b.link.send(&pb.Message{Body: &pb.Message_Path{Path: m}})
}

// close stops sending and frees what the pull held.
func (b *branch) close() {
	b.once.Do(func() {
		close(b.done)
		for _, o := range b.outs {
			o.Track.Remove(o.DownTrack)
		}
		l := b.link
		l.mu.Lock()
		delete(l.branches, b.pull)
		for _, s := range b.slots {
			s.last, s.out, s.branch, s.freed = s.out, nil, nil, time.Now()
		}
		l.mu.Unlock()
		b.release()
		l.sfu.cfg.Ledger.End(b.entry)
	})
}
