package cascade

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/pb"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
)

// negotiate makes and answers offers until the link ends. One goroutine does it
// all, so that offers and answers of one link never interleave.
func (l *Link) negotiate() {
	for {
		var err error
		select {
		case <-l.done:
			return
		case <-l.renegotiate:
			err = l.offer()
		case d := <-l.remote:
			if l.dialer {
				err = errors.New("an answer nobody asked for")
			} else {
				err = l.answer(d)
			}
		}
		if err != nil {
			l.fail("negotiation: " + err.Error())
			return
		}
	}
}

// wantOffer has the dialer negotiate; the other end waits to be offered.
func (l *Link) wantOffer() {
	if l.dialer {
		select {
		case l.renegotiate <- struct{}{}:
		default:
		}
	}
}

// offerLine adds a section to receive kind in. Only the dialer's negotiator,
// and newLink, call it.
func (l *Link) offerLine(kind webrtc.RTPCodecType) error {
	_, err := l.pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
	return err
}

// missing counts, by kind, the tracks we pull that no section was named for.
func (l *Link) missing() map[webrtc.RTPCodecType]int {
	l.mu.Lock()
	defer l.mu.Unlock()
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

func (l *Link) offer() error {
	l.mu.Lock()
	l.offering = true
	l.mu.Unlock()
	for kind, n := range l.missing() {
		for range n - l.sections.unused(kind, l.pc.GetTransceivers()) {
			if err := l.offerLine(kind); err != nil {
				return err
			}
		}
	}
	for s, o := range l.sections.unplaced() {
		tr, err := l.pc.AddTransceiverFromTrack(o, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			return err
		}
		l.place(s, tr.Sender())
	}
	description, err := l.pc.CreateOffer(nil)
	if err == nil {
		_, err = l.pc.SetLocal(l.ctx, description)
	}
	if err != nil {
		return err
	}
	l.send(&pb.Message{Body: &pb.Message_Offer{Offer: l.describe()}})

	timeout := time.NewTimer(linkSetup)
	defer timeout.Stop()
	select {
	case d := <-l.remote:
		if err := l.setRemote(webrtc.SDPTypeAnswer, d); err != nil {
			return err
		}
		return l.assign(d.Slots)
	case <-timeout.C:
		return fmt.Errorf("no answer within %v", linkSetup)
	case <-l.done:
		return nil
	}
}

func (l *Link) answer(d *pb.Description) error {
	if err := l.setRemote(webrtc.SDPTypeOffer, d); err != nil {
		return err
	}
	// A track that has no section yet waits for the next offer, which the
	// peer makes when it hears of the tracks.
	for s, o := range l.sections.unplaced() {
		if !l.roomFor(o.Kind()) {
			continue
		}
		sender, err := l.pc.AddTrack(o)
		if err != nil {
			return err
		}
		l.place(s, sender)
	}
	description, err := l.pc.CreateAnswer(nil)
	if err == nil {
		_, err = l.pc.SetLocal(l.ctx, description)
	}
	if err != nil {
		return err
	}
	l.pc.AwaitChecking(l.links.ctx)
	l.send(&pb.Message{Body: &pb.Message_Answer{Answer: l.describe()}})
	return l.assign(d.Slots)
}

// roomFor reports whether the peer has offered a section for kind that nothing
// is sent in.
func (l *Link) roomFor(kind webrtc.RTPCodecType) bool {
	return slices.ContainsFunc(l.pc.GetTransceivers(), func(t *webrtc.RTPTransceiver) bool {
		return t.Kind() == kind && t.Sender() == nil && t.Direction() == webrtc.RTPTransceiverDirectionSendonly
	})
}

// setRemote gives pion the peer's description, written anew.
func (l *Link) setRemote(kind webrtc.SDPType, d *pb.Description) error {
	text, err := sdp.LinkText(d.Sdp, Limits)
	if err != nil {
		return err
	}
	return l.pc.SetRemoteDescription(webrtc.SessionDescription{Type: kind, SDP: text})
}

// describe is the local description, with the slots that got their mid by it.
func (l *Link) describe() *pb.Description {
	return &pb.Description{Sdp: l.pc.LocalDescription().SDP, Slots: l.sections.name(l.pc.GetTransceivers())}
}

// place gives s its sender and serves its RTCP, for whatever track is sent in
// it at the time.
func (l *Link) place(s *slotOut, sender *webrtc.RTPSender) {
	l.sections.place(s, sender)
	l.tasks.Start(func() {
		rtc.ReadRTCP(sender, func() *forward.DownTrack { return l.sections.sent(s) })
	})
}

// assign notes which sections carry the tracks that we pull, and asks again
// for those that have none yet.
func (l *Link) assign(slots []*pb.Slot) error {
	for _, s := range slots {
		if in := l.upstream(s.Pull); in != nil { // else unsubscribed meanwhile
			in.assign(s.Track, s.Mid)
		}
	}
	l.mu.Lock()
	l.offering = false
	again := false
	for _, in := range l.upstreams {
		if len(in.mids) < len(in.described) {
			again = true
			if in.offers++; in.offers > maxOffers {
				l.mu.Unlock()
				return fmt.Errorf("%d negotiations, and no section for stream %s", maxOffers, in.stream)
			}
		}
	}
	l.mu.Unlock()
	if again {
		l.wantOffer()
	}
	return nil
}

// onTrack is pion's handler: the peer sends in a section now.
func (l *Link) onTrack(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	mid := ""
	for _, tr := range l.pc.GetTransceivers() {
		if tr.Receiver() == receiver {
			mid = tr.Mid()
		}
	}
	in := rtc.NewRemoteTrack(remote, receiver, l.links.cfg.Drops)
	l.sections.came(mid, in)
	l.tasks.Start(in.ReadRTP)
	l.tasks.Start(in.ReadRTCP)
	l.sections.reachable()
}
