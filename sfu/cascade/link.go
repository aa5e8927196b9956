package cascade

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/webrtc/v4"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/task"
	"weir/capacity/tracing"
	"weir/sfu/pb"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
)

const (
	// heartbeat is the interval of pings, and linkDead the time without any
	// message after which a link is lost: five heartbeats.
	heartbeat = 200 * time.Millisecond
	linkDead  = 5 * heartbeat
	// linkLinger is how long the end that opened a link keeps it without pulls.
	linkLinger = 10 * time.Second
	// linkConsent is how long a link may go without an authenticated
	// connectivity check; one is sent every iceKeepalive. pion takes any packet
	// from the peer's address for a sign of life.
	linkConsent = 15 * time.Second
	// linkSetup bounds the time from the opening of a link until media flows.
	linkSetup = 10 * time.Second
	// maxMessage bounds one signalling message, in bytes: an offer of MaxSlots
	// sections takes about 60 KiB.
	maxMessage = 256 << 10
	// MaxSlots bounds the media sections that one end sends in.
	MaxSlots = 64
	// linkLines bounds the lines of one description.
	linkLines = 2 * MaxSlots * 80
	// maxTracks bounds the tracks of one stream.
	maxTracks = sdp.MaxSections
	// slotRest is how long a media section stays unused before another track
	// takes it, so that late packets of the old track are not taken for the new
	// one's.
	slotRest = 2 * time.Second
	// maxOffers is how often a section is requested before the link is ended.
	maxOffers = 4
	// sendQueue is how many messages may wait for a slow peer. One more ends
	// the link.
	sendQueue = 256
)

// Limits are the bounds of a peer's description: each end sends in at most
// MaxSlots sections.
var Limits = sdp.Limits{Bytes: maxMessage, Sections: 2 * MaxSlots, Lines: linkLines}

// Reasons for the end of a pull, as sent to the peer.
const (
	reasonLink    = "link"    // the link broke
	reasonCrossed = "crossed" // both ends opened a link at once
)

// A Link connects this node with another by a single PeerConnection, over which
// either end may pull streams from the other. Its signalling is described in
// pb/cascade.proto.
//
// The end that opened the link makes the offers. A track is sent in a slot: a
// media section that, once the track has gone, carries the next one of the same
// codec without another negotiation.
type Link struct {
	Peer       peer.ID
	links      *Links
	tasks      task.Group // readers, the writer, the negotiator, downstreams
	dialer     bool
	pc         *rtc.Transport
	signal     Signal
	sections   *sections
	negotiator *negotiator
	opened     time.Time
	rtt        atomic.Int64 // of the signalling, ns

	ctx    context.Context // ends with done
	cancel context.CancelFunc

	queue       chan *pb.Message
	beaten      chan struct{} // signalled when a stream has a new beat
	connected   chan struct{} // closed when media can flow
	connectOnce sync.Once
	opening     trace.Span    // until connected is closed, or the link has ended
	done        chan struct{} // closed when the link has ended
	doneOnce    sync.Once
	why         string // set before done is closed

	mu          sync.Mutex
	ended       bool
	lastPull    uint64
	upstreams   map[uint64]*upstream   // what we pull, by our pull ID
	downstreams map[uint64]*downstream // what the peer pulls, by its pull ID
	offering    bool                   // an offer of ours is due, or unanswered
	idle        time.Time              // the time since which nothing is pulled
}

// discard closes a link whose run was never called.
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

// Reasons for the orderly end of a link; any other reason is a loss.
const (
	whyClosing = "this node is closing"
	whyUnused  = "nothing is pulled over it"
	whyClosed  = "the other node has closed it"
)

// lost returns the loss, as a word, of a link that did not end in good order.
func (l *Link) lost() string {
	switch l.why {
	case whyClosing, whyUnused, whyClosed, reasonCrossed, "media connection " + webrtc.PeerConnectionStateClosed.String():
		return ""
	}
	return "lost"
}

// run owns the link: when it returns, its goroutines and its connection have
// ended.
func (l *Link) run() {
	negotiated := make(chan struct{})
	l.tasks.Go(l.read)
	l.tasks.Go(l.write)
	l.tasks.Go(func() {
		defer close(negotiated)
		if err := l.negotiator.run(); err != nil {
			l.fail("negotiation: " + err.Error())
		}
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
		case <-l.links.ctx.Done():
			l.fail(whyClosing)
		case <-l.beaten:
			l.sendBeats(time.Now())
		case now := <-beat.C:
			l.sendBeats(now)
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
	l.links.mu.Lock()
	if l.links.links[l.Peer] == l {
		delete(l.links.links, l.Peer)
	}
	l.links.mu.Unlock()
	l.tasks.Stop()
	l.mu.Lock()
	l.ended = true
	upstreams, downstreams := l.upstreams, l.downstreams
	l.upstreams, l.downstreams = map[uint64]*upstream{}, map[uint64]*downstream{}
	l.mu.Unlock()
	for _, b := range downstreams {
		b.close()
	}
	reason := reasonLink
	if l.why == reasonCrossed {
		reason = reasonCrossed
	}
	for _, in := range upstreams {
		in.End(reason)
	}
	_ = l.signal.Close()
	// If a description is set while the connection closes, pion starts an ICE
	// agent that is never stopped.
	<-negotiated
	_ = l.pc.GracefulClose()
	l.tasks.Wait()
	l.links.event(event.Event{Kind: event.LinkClosed, Peer: l.Peer, Reason: l.lost(), Detail: l.why, Elapsed: capacity.Milliseconds(time.Since(l.opened))})
}

// onTrack is the OnTrack handler for pion: the peer has begun to send in a
// section.
func (l *Link) onTrack(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	mid := ""
	for _, tr := range l.pc.GetTransceivers() {
		if tr.Receiver() == receiver {
			mid = tr.Mid()
		}
	}
	in := l.pc.NewRemoteTrack(remote, receiver, l.links.cfg.Drops)
	l.sections.came(mid, in)
	l.tasks.Go(in.ReadRTP)
	l.tasks.Go(in.ReadRTCP)
	l.sections.reachable()
}

// unused returns how long nothing has been pulled either way.
func (l *Link) unused(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.upstreams) > 0 || len(l.downstreams) > 0 {
		l.idle = now
	}
	return now.Sub(l.idle)
}

// LinkStatus is a link as seen from this end.
type LinkStatus struct {
	Peer       peer.ID   `json:"peer"`
	State      string    `json:"state"`
	Dialer     bool      `json:"dialer"` // this node opened it
	RTT        float64   `json:"rtt_ms"`
	Opened     time.Time `json:"opened"`
	PullsIn    []string  `json:"pulls_in"`  // streams pulled from the peer
	PullsOut   []string  `json:"pulls_out"` // streams pulled by the peer
	PacketsIn  int64     `json:"packets_in"`
	PacketsOut int64     `json:"packets_out"`
	BytesIn    int64     `json:"bytes_in"`  // payload
	BytesOut   int64     `json:"bytes_out"` // RTP
	Lost       int64     `json:"lost"`      // packets lost on the way here
}

func (l *Link) status() LinkStatus {
	st := LinkStatus{
		Peer: l.Peer, State: l.pc.ConnectionState().String(), Dialer: l.dialer, Opened: l.opened,
		RTT: capacity.Milliseconds(time.Duration(l.rtt.Load())), PullsIn: []string{}, PullsOut: []string{},
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, in := range l.upstreams {
		st.PullsIn = append(st.PullsIn, in.stream)
		for _, f := range in.feeds {
			packets, bytes := f.track.Received()
			st.PacketsIn += packets
			st.BytesIn += bytes
			st.Lost += f.up.Lost()
		}
	}
	for _, b := range l.downstreams {
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
