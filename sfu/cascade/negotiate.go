package cascade

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/pb"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
	"weir/sfu/tasks"
)

// A negotiator makes the offers of one link, or answers them, and places what is
// to be sent in the sections that come of it. One goroutine, in run, does it all,
// so that offers and answers of one link never interleave.
type negotiator struct {
	dialer   bool // offers are made here
	pc       *rtc.Transport
	sections *sections
	tasks    *tasks.Group    // readers of RTCP
	ctx      context.Context // ends with the link
	closing  context.Context // ends when this node does
	done     <-chan struct{} // closed when the link has ended

	wanted chan struct{}        // dialer: there is something to offer
	remote chan *pb.Description // the other end's offers, or answers

	// The link's. Begin is told that an offer begins, and counts, by kind, the
	// tracks that no section was named for. Assign is told which sections the peer
	// has named, and reports whether others are still to be asked for.
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
				err = errors.New("an answer nobody asked for")
			} else {
				err = n.answer(d)
			}
		}
		if err != nil {
			return err
		}
	}
}

// open asks for a first offer, with one section of each kind, so that the first
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

// want has the dialer negotiate; the other end waits to be offered.
func (n *negotiator) want() {
	if n.dialer {
		select {
		case n.wanted <- struct{}{}:
		default:
		}
	}
}

// described takes the peer's description. It does not block.
func (n *negotiator) described(d *pb.Description) error {
	select {
	case n.remote <- d:
		return nil
	default:
		return errors.New("a description before the last one was answered")
	}
}

// offerLine adds a section to receive kind in.
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
	// A track that has no section yet waits for the next offer, which the
	// peer makes when it hears of the tracks.
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

// roomFor reports whether the peer has offered a section for kind that nothing
// is sent in.
func (n *negotiator) roomFor(kind webrtc.RTPCodecType) bool {
	return slices.ContainsFunc(n.pc.GetTransceivers(), func(t *webrtc.RTPTransceiver) bool {
		return t.Kind() == kind && t.Sender() == nil && t.Direction() == webrtc.RTPTransceiverDirectionSendonly
	})
}

// setRemote gives pion the peer's description, written anew.
func (n *negotiator) setRemote(kind webrtc.SDPType, d *pb.Description) error {
	text, err := sdp.LinkText(d.Sdp, Limits)
	if err != nil {
		return err
	}
	return n.pc.SetRemoteDescription(webrtc.SessionDescription{Type: kind, SDP: text})
}

// describe is the local description, with the slots that got their mid by it.
func (n *negotiator) describe() *pb.Description {
	return &pb.Description{Sdp: n.pc.LocalDescription().SDP, Slots: n.sections.name(n.pc.GetTransceivers())}
}

// place gives s its sender and serves its RTCP, for whatever track is sent in
// it at the time.
func (n *negotiator) place(s *slotOut, sender *webrtc.RTPSender) {
	n.sections.place(s, sender)
	n.tasks.Start(func() {
		rtc.ReadRTCP(sender, func() *forward.DownTrack { return n.sections.sent(s) })
	})
}

// settle has the sections that the peer has named assigned, and asks again for
// those that are wanted still.
func (n *negotiator) settle(slots []*pb.Slot) error {
	again, err := n.assign(slots)
	if again {
		n.want()
	}
	return err
}
