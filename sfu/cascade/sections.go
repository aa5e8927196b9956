package cascade

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/webrtc/v4"

	"weir/sfu/forward"
	"weir/sfu/pb"
	"weir/sfu/rtc"
)

// sections holds the media sections of one link, in both directions, and the
// tracks they carry. Its lock may be taken while the link's is held, never the
// other way round: nothing here calls a Link.
type sections struct {
	mu  sync.Mutex
	in  map[string]*slotIn // by mid
	out []*slotOut
}

// slotIn is a media section that the peer sends in.
type slotIn struct {
	remote atomic.Pointer[rtc.RemoteTrack] // nil before OnTrack
	next   *forward.UpTrack                // the UpTrack it carries now; guarded by sections.mu
}

// slotOut is a media section that this end sends in.
type slotOut struct {
	sender *webrtc.RTPSender
	out    *rtc.LocalTrack // nil: unused since freed
	pull   uint64          // the pull that out belongs to
	last   *rtc.LocalTrack // the last track sent in it, if it is unused
	mime   string
	mid    string // "" until negotiated
	freed  time.Time
}

func newSections() *sections { return &sections{in: map[string]*slotIn{}} }

// count returns the number of sections that this end sends in, and how many of
// them another track may take.
func (s *sections) count(now time.Time) (all, rested int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range s.out {
		if slot.out == nil && now.Sub(slot.freed) > slotRest {
			rested++
		}
	}
	return len(s.out), rested
}

// room reports whether the link can send so many more tracks.
func (s *sections) room(tracks int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.out)+tracks <= MaxSlots
}

// take finds a section that has rested for o, which belongs to pull, or records
// that one is needed.
func (s *sections) take(pull uint64, o *rtc.LocalTrack, now time.Time) *slotOut {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range s.out {
		if slot.out == nil && slot.mid != "" && slot.mime == o.Track.Codec.MimeType && now.Sub(slot.freed) > slotRest && slot.sender.ReplaceTrack(o) == nil {
			o.Follow(slot.last.DownTrack)
			slot.out, slot.pull, slot.last = o, pull, nil
			return slot
		}
	}
	slot := &slotOut{out: o, pull: pull, mime: o.Track.Codec.MimeType}
	s.out = append(s.out, slot)
	return slot
}

// free releases slots for other tracks.
func (s *sections) free(slots []*slotOut, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range slots {
		slot.last, slot.out, slot.pull, slot.freed = slot.out, nil, 0, now
	}
}

// mids returns the mids of slots, "" for a slot that has none yet.
func (s *sections) mids(slots []*slotOut) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	mids := make([]string, len(slots))
	for i, slot := range slots {
		mids[i] = slot.mid
	}
	return mids
}

// unplaced returns the slots that wait for a section, and their tracks.
func (s *sections) unplaced() map[*slotOut]*rtc.LocalTrack {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = slices.DeleteFunc(s.out, func(slot *slotOut) bool { return slot.sender == nil && slot.out == nil })
	all := map[*slotOut]*rtc.LocalTrack{}
	for _, slot := range s.out {
		if slot.sender == nil {
			all[slot] = slot.out
		}
	}
	return all
}

// place gives slot its sender.
func (s *sections) place(slot *slotOut, sender *webrtc.RTPSender) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot.sender = sender
}

// sent returns the DownTrack that is sent in slot now, or nil.
func (s *sections) sent(slot *slotOut) *forward.DownTrack {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot.out == nil {
		return nil
	}
	return slot.out.DownTrack
}

// name records the mids that slots got by a negotiation, and returns the tracks
// that are sent in these.
func (s *sections) name(negotiated []*webrtc.RTPTransceiver) (named []*pb.Slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, tr := range negotiated {
		for _, slot := range s.out {
			if slot.mid == "" && slot.sender != nil && slot.sender == tr.Sender() {
				slot.mid = tr.Mid()
				if slot.out != nil {
					named = append(named, &pb.Slot{Mid: slot.mid, Pull: slot.pull, Track: slot.out.Track.ID})
				}
			}
		}
	}
	return named
}

// unused counts the sections of kind that this end offered to receive in and
// that no track was ever assigned to.
func (s *sections) unused(kind webrtc.RTPCodecType, offered []*webrtc.RTPTransceiver) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, tr := range offered {
		if tr.Kind() == kind && tr.Sender() == nil && s.in[tr.Mid()] == nil {
			n++
		}
	}
	return n
}

// came records the remote track that the peer sends in section mid.
func (s *sections) came(mid string, remote *rtc.RemoteTrack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.slot(mid)
	slot.remote.Store(remote)
	if slot.next != nil {
		remote.Assign(slot.next)
	}
}

// carry assigns the packets of section mid to f, which may request keyframes
// there from its first packet on.
func (s *sections) carry(mid string, f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.slot(mid)
	slot.next = f.up
	f.slot.Store(slot)
	if remote := slot.remote.Load(); remote != nil {
		remote.Assign(f.up)
	}
}

// leave stops sending packets to f.
func (s *sections) leave(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := f.slot.Load()
	if slot == nil || slot.next != f.up {
		return
	}
	slot.next = nil
	if remote := slot.remote.Load(); remote != nil {
		remote.Assign(nil)
	}
}

// slot returns the section mid, and makes it if needed. Called with mu held.
func (s *sections) slot(mid string) *slotIn {
	slot := s.in[mid]
	if slot == nil {
		slot = &slotIn{}
		s.in[mid] = slot
	}
	return slot
}

// reachable sends the keyframe requests that could not be sent before.
func (s *sections) reachable() {
	s.mu.Lock()
	var ups []*forward.UpTrack
	for _, slot := range s.in {
		if slot.next != nil {
			ups = append(ups, slot.next)
		}
	}
	s.mu.Unlock()
	for _, up := range ups {
		up.Reachable()
	}
}
