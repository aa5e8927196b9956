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

// sections are the media sections of one link, in both directions, and what is
// carried in them. Its lock may be taken while the link's is held, never the
// other way round: nothing here calls a Link.
type sections struct {
	mu  sync.Mutex
	in  map[string]*slotIn // by mid
	out []*slotOut
}

// slotIn is a media section that the peer sends in.
type slotIn struct {
	remote atomic.Pointer[rtc.RemoteTrack] // nil until it is there
	next   *forward.UpTrack                // sections.mu's: what is carried in it now
}

// slotOut is a media section that we send in.
type slotOut struct {
	sender *webrtc.RTPSender
	out    *rtc.LocalTrack // nil: free since freed
	pull   uint64          // that out is sent for
	last   *rtc.LocalTrack // that was sent in it, if it is free
	mime   string
	mid    string // "" until negotiated
	freed  time.Time
}

func newSections() *sections { return &sections{in: map[string]*slotIn{}} }

// count is how many sections we send in, and how many of them another track may
// take.
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

// room reports whether so many more tracks can be sent.
func (s *sections) room(tracks int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.out)+tracks <= MaxSlots
}

// take finds a section for o, of a pull, that has rested, or notes that one is
// wanted.
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

// free leaves slots to other tracks.
func (s *sections) free(slots []*slotOut, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, slot := range slots {
		slot.last, slot.out, slot.pull, slot.freed = slot.out, nil, 0, now
	}
}

// mids are those of slots, "" of one that has none yet.
func (s *sections) mids(slots []*slotOut) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	mids := make([]string, len(slots))
	for i, slot := range slots {
		mids[i] = slot.mid
	}
	return mids
}

// unplaced are the slots that wait for a section, and what is to be sent there.
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

// sent is the track that is sent in slot at the time, or nil.
func (s *sections) sent(slot *slotOut) *forward.DownTrack {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slot.out == nil {
		return nil
	}
	return slot.out.DownTrack
}

// name notes the mids that slots have got by a negotiation, and returns what is
// sent in these.
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

// unused counts the sections of kind that we offered to receive in and that no
// track was ever named for.
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

// came notes what the peer sends in section mid.
func (s *sections) came(mid string, remote *rtc.RemoteTrack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.slot(mid)
	slot.remote.Store(remote)
	if slot.next != nil {
		remote.Assign(slot.next)
	}
}

// carry has what comes in section mid go to f, which may ask for keyframes there
// from its first packet on.
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

// leave has nothing more go to f.
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

// slot is the section mid, made if need be. Called with mu held.
func (s *sections) slot(mid string) *slotIn {
	slot := s.in[mid]
	if slot == nil {
		slot = &slotIn{}
		s.in[mid] = slot
	}
	return slot
}

// reachable has keyframe requests sent that could not be sent before.
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
