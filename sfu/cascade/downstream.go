package cascade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
	"weir/sfu/tree"
)

// A downstream is one stream that the peer pulls from us.
type downstream struct {
	link    *Link
	pull    uint64
	stream  *tree.Stream
	outs    []*rtc.LocalTrack
	slots   []*slotOut
	release func() // releases the stream
	entry   string // ledger entry
	beats   bool   // the peer understands them
	told    uint64 // the last count sent; the link's run owns it

	done chan struct{}
	once sync.Once
}

// serve answers a subscription. It runs on the link's reader and does not
// block.
func (l *Link) serve(req *pb.Subscribe) {
	_, span := tracing.Start(tracing.FromWire(context.Background(), req.Trace), l.links.cfg.Tracer, "subscribe", trace.SpanKindServer,
		tracing.RPCSystem.String(tracing.System), tracing.RPCMethod.String("cascade/subscribe"), tracing.Peer.String(l.Peer.String()))
	defer span.End()
	b, err := l.newDownstream(req)
	if err != nil {
		l.links.cfg.Ledger.Release(l.Peer, req.Lease)
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
	if b.beats {
		answer.Beat = beatOf(b.pull, b.stream.Beat(time.Now()))
	}
	waiting := false
	mids := l.sections.mids(b.slots)
	for i, o := range b.outs {
		c := o.Track.Codec
		answer.Tracks = append(answer.Tracks, &pb.Track{
			Id: o.Track.ID, Mime: c.MimeType, Clock: c.ClockRate, Channels: uint32(c.Channels), Fmtp: c.Fmtp, Mid: mids[i],
		})
		waiting = waiting || mids[i] == ""
	}
	l.send(&pb.Message{Body: &pb.Message_Subscribed{Subscribed: answer}})
	if l.links.cfg.Leaving() && !b.stream.Published() { // since newDownstream has looked
		b.TellLeave()
	}
	if waiting {
		l.negotiator.want()
	}
	l.tasks.Go(b.watch)
}

func (l *Link) newDownstream(req *pb.Subscribe) (*downstream, error) {
	s := l.links
	if err := capacity.ValidStreamName(req.Stream); err != nil {
		return nil, err
	}
	st := s.cfg.Stream(req.Stream)
	if st == nil {
		return nil, &capacity.Refusal{Reason: "not-here", Detail: "this node does not carry the stream"}
	}
	for _, t := range st.Tracks {
		if mime := t.Codec.MimeType; !forwards(req.Codecs, mime) {
			return nil, &capacity.Refusal{Reason: "codec", Detail: fmt.Sprintf("the stream has %s, which your release does not forward", mime)}
		}
	}
	if now := time.Now(); st.Orphan(now) {
		return nil, &capacity.Refusal{Reason: tree.Orphaned, Detail: fmt.Sprintf("its origin has given no sign of life for %v", st.Beat(now).Age.Round(100*time.Millisecond))}
	}
	if s.cfg.Leaving() && !st.Published() {
		return nil, &capacity.Refusal{Reason: "draining", Detail: "this relay is about to go"}
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
	b := &downstream{link: l, pull: req.Pull, stream: st, beats: req.Beats, done: make(chan struct{})}

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil, tree.ErrGone
	}
	if l.downstreams[req.Pull] != nil {
		return nil, &capacity.Refusal{Reason: "pull", Detail: "that number is in use"}
	}
	if !l.sections.room(len(st.Tracks)) { // only this goroutine takes sections
		return nil, &capacity.Refusal{Reason: "slots", Detail: fmt.Sprintf("%d tracks are the most that one link carries", MaxSlots)}
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
		o.Relay, o.Mixed = true, true
		b.outs = append(b.outs, o)
		b.slots = append(b.slots, l.sections.take(b.pull, o, now))
	}
	l.downstreams[b.pull] = b
	return b, nil
}

// forwards reports whether a node whose subscription names codecs forwards mime.
func forwards(codecs []string, mime string) bool {
	return slices.Contains(codecs, mime) || len(codecs) == 0 && sdp.InEveryRelease(mime)
}

// begin starts media: the peer is ready.
func (b *downstream) begin() {
	select {
	case <-b.done:
		return
	default:
	}
	for _, o := range b.outs {
		o.Track.Add(o.DownTrack)
	}
	select {
	case <-b.done: // close may have removed them before
		b.remove()
	default:
	}
}

func (b *downstream) remove() {
	for _, o := range b.outs {
		o.Track.Remove(o.DownTrack)
	}
}

// watch tells the peer when the stream has ended here.
func (b *downstream) watch() {
	select {
	case <-b.stream.Done():
		b.link.send(&pb.Message{Body: &pb.Message_Ended{Ended: &pb.Ended{Pull: b.pull, Reason: b.stream.Reason()}}})
		b.close()
	case <-b.done:
	}
}

func (b *downstream) TellPath(path []peer.ID) {
	m := &pb.Path{Pull: b.pull}
	for _, id := range path {
		m.Path = append(m.Path, []byte(id))
	}
	b.link.send(&pb.Message{Body: &pb.Message_Path{Path: m}})
}

// TellLeave tells the peer to pull the stream from another node.
func (b *downstream) TellLeave() {
	b.link.send(&pb.Message{Body: &pb.Message_Leave{Leave: &pb.Leave{Pull: b.pull}}})
}

// TellBeat has the link tell the peer the newest beat of the stream.
func (b *downstream) TellBeat() {
	select {
	case b.link.beaten <- struct{}{}:
	default: // it is about to
	}
}

// close stops sending and releases what the pull held.
func (b *downstream) close() {
	b.once.Do(func() {
		close(b.done)
		b.remove()
		l := b.link
		l.mu.Lock()
		delete(l.downstreams, b.pull)
		l.sections.free(b.slots, time.Now())
		l.mu.Unlock()
		b.release()
		l.links.cfg.Ledger.End(b.entry)
	})
}
