package cascade

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/webrtc/v4"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity/tracing"
	"weir/sfu/forward"
	"weir/sfu/pb"
	"weir/sfu/problem"
	"weir/sfu/sdp"
	"weir/sfu/tree"
)

// An upstream is one stream that this node pulls over a link.
type upstream struct {
	link   *Link
	pull   uint64
	stream string

	result chan error     // the answer to the subscription
	moved  chan []peer.ID // new paths of the sender; the last one counts
	done   chan struct{}  // closed when the pull has ended
	once   sync.Once      //
	reason string         // set before done is closed
	path   []peer.ID      // path to the sender; set before result
	offers int            // requests for a section in vain; the negotiator's
	beats  beats

	leaving   chan struct{} // closed when the peer is about to go
	leaveOnce sync.Once

	// link.mu guards the following fields.
	described []*pb.Track
	mids      map[string]string
	feeds     map[string]*feed
	started   bool
}

// A feed connects one track of an upstream with its Track.
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

// subscribe requests stream from the peer. The lease is one that the peer
// granted, and may be empty. The error is a [capacity.Refusal] if the peer
// refused.
func (l *Link) subscribe(ctx context.Context, stream, lease string) (in *upstream, err error) {
	ctx, span := tracing.Start(ctx, l.links.cfg.Tracer, "subscribe", trace.SpanKindClient,
		tracing.RPCSystem.String(tracing.System), tracing.RPCMethod.String("cascade/subscribe"), tracing.Peer.String(l.Peer.String()), tracing.Stream.String(stream))
	defer func() { problem.Failed(span, err); span.End() }()
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		return nil, tree.ErrGone
	}
	l.lastPull++
	in = &upstream{
		link: l, pull: l.lastPull, stream: stream,
		result: make(chan error, 1), moved: make(chan []peer.ID, 1), done: make(chan struct{}),
		mids: map[string]string{}, beats: newBeats(), leaving: make(chan struct{}),
	}
	l.upstreams[in.pull] = in
	l.mu.Unlock()
	l.send(&pb.Message{Body: &pb.Message_Subscribe{Subscribe: &pb.Subscribe{Pull: in.pull, Stream: stream, Lease: lease, Beats: true, Codecs: sdp.ForwardableCodecs(), Trace: tracing.ToWire(ctx)}}})

	select {
	case err = <-in.result:
		if err == nil && slices.Contains(in.path, l.links.cfg.Self) {
			err = tree.ErrLoop
		}
	case <-in.done:
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

// beginOffer records that an offer is made, and counts, by kind, the pulled
// tracks without a section.
func (l *Link) beginOffer() map[webrtc.RTPCodecType]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offering = true
	want := map[webrtc.RTPCodecType]int{}
	for _, in := range l.upstreams {
		for _, t := range in.described {
			if in.mids[t.Id] == "" {
				want[sdp.KindOf(t.Mime)]++
			}
		}
	}
	return want
}

// assign records which sections carry the pulled tracks, and reports whether
// some tracks have none yet.
func (l *Link) assign(slots []*pb.Slot) (again bool, err error) {
	for _, s := range slots {
		if in := l.upstream(s.Pull); in != nil { // nil: unsubscribed meanwhile
			in.assign(s.Track, s.Mid)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offering = false
	for _, in := range l.upstreams {
		if len(in.mids) < len(in.described) {
			again = true
			if in.offers++; in.offers > maxOffers {
				return false, fmt.Errorf("%d negotiations, and no section for stream %s", maxOffers, in.stream)
			}
		}
	}
	return again, nil
}

// accepted processes the peer's answer. An error ends the link: the peer has
// broken the protocol.
func (in *upstream) accepted(m *pb.Subscribed) error {
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
	in.beats.subscribed(m.Beat)
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
		l.negotiator.want()
	}
	in.result <- nil
	return nil
}

func (in *upstream) refused(err error) {
	select {
	case in.result <- err:
	default:
		in.End(err.Error())
	}
}

// Tracks makes tracks from the sender's description.
func (in *upstream) Tracks() []*forward.Track {
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

// Continues reports whether the sender's tracks can continue the given tracks.
func (in *upstream) Continues(tracks []*forward.Track) bool {
	return slices.EqualFunc(in.Tracks(), tracks, func(a, b *forward.Track) bool {
		return a.ID == b.ID && a.Codec.MimeType == b.Codec.MimeType && a.Codec.ClockRate == b.Codec.ClockRate && a.Codec.Channels == b.Codec.Channels
	})
}

// Connect makes the pull the source of tracks, which are those of Tracks or
// others that Continues has accepted, and asks the sender to start.
func (in *upstream) Connect(tracks []*forward.Track) { in.connect(tracks, (*forward.Track).Attach) }

// Prepare is Connect for tracks that have a source until this pull brings a
// keyframe of each.
func (in *upstream) Prepare(tracks []*forward.Track) { in.connect(tracks, (*forward.Track).Prepare) }

// Taken reports whether the pull is the source of all tracks.
func (in *upstream) Taken() bool {
	in.link.mu.Lock()
	defer in.link.mu.Unlock()
	for _, f := range in.feeds {
		if !f.up.Taken() {
			return false
		}
	}
	return true
}

// Take makes the pull the source of all tracks at once.
func (in *upstream) Take() {
	in.link.mu.Lock()
	feeds := slices.Collect(maps.Values(in.feeds))
	in.link.mu.Unlock()
	for _, f := range feeds {
		if !f.up.Taken() {
			f.up.Take()
		}
	}
}

// Leaving is closed when the peer has said that it is about to go.
func (in *upstream) Leaving() <-chan struct{} { return in.leaving }

func (in *upstream) connect(tracks []*forward.Track, source func(*forward.Track, forward.Receiver) *forward.UpTrack) {
	l := in.link
	feeds := map[string]*feed{}
	for _, t := range tracks {
		f := &feed{link: l, track: t}
		f.up = source(t, f)
		feeds[t.ID] = f
	}
	l.mu.Lock()
	in.feeds = feeds
	l.mu.Unlock()
	in.wire()
}

// assign records that section mid carries track. The negotiator calls it.
func (in *upstream) assign(track, mid string) {
	in.link.mu.Lock()
	known := slices.ContainsFunc(in.described, func(t *pb.Track) bool { return t.Id == track })
	if known && in.mids[track] == "" {
		in.mids[track] = plain(mid)
	}
	in.link.mu.Unlock()
	in.wire()
}

// wire connects tracks with sections as far as both are known, and asks the
// sender to start once all are connected.
func (in *upstream) wire() {
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
		l.sections.carry(mid, f)
	}
	in.started = true
	l.send(&pb.Message{Body: &pb.Message_Start{Start: &pb.Start{Pull: in.pull}}})
}

func (in *upstream) move(path []peer.ID) {
	in.beats.moved()
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

// Unsubscribe ends the pull from our side.
func (in *upstream) Unsubscribe() {
	in.link.send(&pb.Message{Body: &pb.Message_Unsubscribe{Unsubscribe: &pb.Unsubscribe{Pull: in.pull}}})
	in.End("unsubscribed")
}

// End records that the pull is over, and why.
func (in *upstream) End(why string) {
	in.once.Do(func() {
		in.reason = why
		l := in.link
		l.mu.Lock()
		delete(l.upstreams, in.pull)
		for _, f := range in.feeds {
			l.sections.leave(f)
			f.up.Close()
			l.links.lost.Add(max(0, f.up.Lost()))
		}
		l.mu.Unlock()
		close(in.done)
	})
}

// Peer returns the node that the stream is pulled from.
func (in *upstream) Peer() peer.ID { return in.link.Peer }

// Path returns the path from the origin to that node.
func (in *upstream) Path() []peer.ID { return slices.Clone(in.path) }

// RTT returns the round trip to that node, measured by the signalling.
func (in *upstream) RTT() time.Duration { return time.Duration(in.link.rtt.Load()) }

// Moved receives the node's path when that changes; the last one counts.
func (in *upstream) Moved() <-chan []peer.ID { return in.moved }

// Done is closed when the pull has ended.
func (in *upstream) Done() <-chan struct{} { return in.done }

// Reason returns why the pull ended. Call it only after Over is closed.
func (in *upstream) Reason() string { return in.reason }
