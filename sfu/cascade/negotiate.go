package cascade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pion/webrtc/v4"

	"weir/capacity/task"
	"weir/sfu/forward"
	"weir/sfu/pb"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
)

// A negotiator makes or answers the offers of one link, and places DownTracks
// in the negotiated sections. One goroutine, in run, does all of it, so that
// offers and answers of a link never interleave.
type negotiator struct {
	dialer   bool // this end makes the offers
	pc       *rtc.Transport
	sections *sections
	tasks    *task.Group     // readers of RTCP
	ctx      context.Context // ends with the link
	closing  context.Context // ends when this node does
	done     <-chan struct{} // closed when the link has ended

	wanted chan struct{}        // dialer: an offer is due
	remote chan *pb.Description // offers, or answers, of the peer

	// Functions of the link. Begin records that an offer begins, and counts, by
	// kind, the tracks without a section. Assign records the sections that the
	// peer has named, and reports whether other sections are still needed.
	send   func(*pb.Message)
	begin  func() map[webrtc.RTPCodecType]int
	assign func([]*pb.Slot) (again bool, err error)
}

// run negotiates until the link ends, or has to.
func (n *negotiator) run() error {
	for {
		var err error
		select {
		case <-n.done:
			return nil
		case <-n.wanted:
			err = n.offer()
		case d := <-n.remote:
			if n.dialer {
				err = errors.New("an answer without an offer")
			} else {
				err = n.answer(d)
			}
		}
		if err != nil {
			return err
		}
	}
}

// open requests a first offer with one section of each kind, so that the first
// pull need not wait to learn the stream's tracks. It is called before run.
func (n *negotiator) open() error {
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if err := n.offerLine(kind); err != nil {
			return err
		}
	}
	n.want()
	return nil
}

// want starts a negotiation at the dialer; the other end waits for an offer.
func (n *negotiator) want() {
	if n.dialer {
		select {
		case n.wanted <- struct{}{}:
		default:
		}
	}
}

// described queues the peer's description. It does not block.
func (n *negotiator) described(d *pb.Description) error {
	select {
	case n.remote <- d:
		return nil
	default:
		return errors.New("a description before the last one was answered")
	}
}

// offerLine adds a section for receiving kind.
func (n *negotiator) offerLine(kind webrtc.RTPCodecType) error {
	_, err := n.pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
	return err
}

func (n *negotiator) offer() error {
	for kind, missing := range n.begin() {
		for range missing - n.sections.unused(kind, n.pc.GetTransceivers()) {
			if err := n.offerLine(kind); err != nil {
				return err
			}
		}
	}
	for s, o := range n.sections.unplaced() {
		tr, err := n.pc.AddTransceiverFromTrack(o, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			return err
		}
		n.place(s, tr.Sender())
	}
	description, err := n.pc.CreateOffer(nil)
	if err == nil {
		_, err = n.pc.SetLocal(n.ctx, description)
	}
	if err != nil {
		return err
	}
	n.send(&pb.Message{Body: &pb.Message_Offer{Offer: n.describe()}})

	timeout := time.NewTimer(linkSetup)
	defer timeout.Stop()
	select {
	case d := <-n.remote:
		if err := n.setRemote(webrtc.SDPTypeAnswer, d); err != nil {
			return err
		}
		return n.settle(d.Slots)
	case <-timeout.C:
		return fmt.Errorf("no answer within %v", linkSetup)
	case <-n.done:
		return nil
	}
}

func (n *negotiator) answer(d *pb.Description) error {
	if err := n.setRemote(webrtc.SDPTypeOffer, d); err != nil {
		return err
	}
	// A track without a section waits for the next offer, which the peer makes
	// when it learns of the tracks.
	for s, o := range n.sections.unplaced() {
		if !n.roomFor(o.Kind()) {
			continue
		}
		sender, err := n.pc.AddTrack(o)
		if err != nil {
			return err
		}
		n.place(s, sender)
	}
	description, err := n.pc.CreateAnswer(nil)
	if err == nil {
		_, err = n.pc.SetLocal(n.ctx, description)
	}
	if err != nil {
		return err
	}
	n.pc.AwaitChecking(n.closing)
	n.send(&pb.Message{Body: &pb.Message_Answer{Answer: n.describe()}})
	return n.settle(d.Slots)
}

// roomFor reports whether the peer has offered a section for kind that carries
// nothing.
func (n *negotiator) roomFor(kind webrtc.RTPCodecType) bool {
	return slices.ContainsFunc(n.pc.GetTransceivers(), func(t *webrtc.RTPTransceiver) bool {
		return t.Kind() == kind && t.Sender() == nil && t.Direction() == webrtc.RTPTransceiverDirectionSendonly
	})
}

// setRemote sets the peer's description, rewritten, in pion.
func (n *negotiator) setRemote(kind webrtc.SDPType, d *pb.Description) error {
	text, err := sdp.LinkText(d.Sdp, Limits)
	if err != nil {
		return err
	}
	return n.pc.SetRemoteDescription(webrtc.SessionDescription{Type: kind, SDP: text})
}

// describe returns the local description, with the slots that got their mid by
// it.
func (n *negotiator) describe() *pb.Description {
	return &pb.Description{Sdp: n.pc.LocalDescription().SDP, Slots: n.sections.name(n.pc.GetTransceivers())}
}

// place gives s its sender, and serves the RTCP of the track that s carries at
// the time.
func (n *negotiator) place(s *slotOut, sender *webrtc.RTPSender) {
	n.sections.place(s, sender)
	n.tasks.Go(func() {
		rtc.ReadRTCP(sender, func() *forward.DownTrack { return n.sections.sent(s) })
	})
}

// settle assigns the sections that the peer has named, and requests those that
// are still missing.
func (n *negotiator) settle(slots []*pb.Slot) error {
	again, err := n.assign(slots)
	if again {
		n.want()
	}
	return err
}
