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

// unusedLines counts the sections of kind that we offered to receive in and
// that no track was ever named for.
func (l *Link) unusedLines(kind webrtc.RTPCodecType) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, tr := range l.pc.GetTransceivers() {
		if tr.Kind() == kind && tr.Sender() == nil && l.slotsIn[tr.Mid()] == nil {
			n++
		}
	}
	return n
}

func (l *Link) offer() error {
	l.mu.Lock()
	l.offering = true
	l.mu.Unlock()
	for kind, n := range l.missing() {
		for range n - l.unusedLines(kind) {
			if err := l.offerLine(kind); err != nil {
				return err
			}
		}
	}
	for s, o := range l.unplaced() {
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
	for s, o := range l.unplaced() {
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
	d := &pb.Description{Sdp: l.pc.LocalDescription().SDP}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, tr := range l.pc.GetTransceivers() {
		for _, s := range l.slotsOut {
			if s.mid == "" && s.sender != nil && s.sender == tr.Sender() {
				s.mid = tr.Mid()
				if s.downstream != nil {
					d.Slots = append(d.Slots, &pb.Slot{Mid: s.mid, Pull: s.downstream.pull, Track: s.out.Track.ID})
				}
			}
		}
	}
	return d
}

// unplaced are the slots that wait for a section, and what is to be sent there.
func (l *Link) unplaced() map[*slotOut]*rtc.LocalTrack {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.slotsOut = slices.DeleteFunc(l.slotsOut, func(s *slotOut) bool { return s.sender == nil && s.out == nil })
	all := map[*slotOut]*rtc.LocalTrack{}
	for _, s := range l.slotsOut {
		if s.sender == nil {
			all[s] = s.out
		}
	}
	return all
}

// place gives s its sender and serves its RTCP, for whatever track is sent in
// it at the time.
func (l *Link) place(s *slotOut, sender *webrtc.RTPSender) {
	l.mu.Lock()
	s.sender = sender
	l.mu.Unlock()
	l.tasks.Start(func() {
		rtc.ReadRTCP(sender, func() *forward.DownTrack {
			l.mu.Lock()
			defer l.mu.Unlock()
			if s.out == nil {
				return nil
			}
			return s.out.DownTrack
		})
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
	l.mu.Lock()
	slot := l.slot(mid)
	slot.remote.Store(in)
	if slot.next != nil {
		in.Assign(slot.next)
	}
	l.mu.Unlock()
	l.tasks.Start(in.ReadRTP)
	l.tasks.Start(in.ReadRTCP)
	l.reachable()
}

// slot is the section mid, made if need be. Called with mu held.
func (l *Link) slot(mid string) *slotIn {
	s := l.slotsIn[mid]
	if s == nil {
		s = &slotIn{}
		l.slotsIn[mid] = s
	}
	return s
}

// reachable has keyframe requests sent that could not be sent before.
func (l *Link) reachable() {
	l.mu.Lock()
	var ups []*forward.UpTrack
	for _, s := range l.slotsIn {
		if s.next != nil {
			ups = append(ups, s.next)
		}
	}
	l.mu.Unlock()
	for _, up := range ups {
		up.Reachable()
	}
}
