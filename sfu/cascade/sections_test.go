package cascade

import (
	"testing"
	"time"

	"weir/sfu/forward"
	"weir/sfu/rtc"
)

func local(mime string) *rtc.LocalTrack {
	return &rtc.LocalTrack{DownTrack: forward.NewDownTrack(&forward.Track{ID: "video0", Codec: forward.Codec{MimeType: mime}})}
}

// A link sends a bounded number of tracks; one that goes before it has a
// section leaves nothing behind.
func TestSectionsSentIn(t *testing.T) {
	s, now := newSections(), time.Now()
	if !s.room(MaxSlots) || s.room(MaxSlots+1) {
		t.Errorf("no room for %d tracks, or for one more", MaxSlots)
	}
	track := local("video/VP8")
	kept, gone := s.take(1, track, now), s.take(2, local("video/VP8"), now)
	if s.room(MaxSlots-1) || !s.room(MaxSlots-2) {
		t.Errorf("two tracks do not take two of %d", MaxSlots)
	}
	if s.sent(kept) != track.DownTrack {
		t.Error("another track is sent")
	}
	s.free([]*slotOut{gone}, now)
	if s.sent(gone) != nil {
		t.Error("a track that has gone is sent")
	}
	for after, want := range map[time.Duration]int{slotRest: 0, slotRest + 1: 1} {
		if all, rested := s.count(now.Add(after)); all != 2 || rested != want {
			t.Errorf("after %v: %d sections, %d have rested, want 2 and %d", after, all, rested, want)
		}
	}
	if waiting := s.unplaced(); len(waiting) != 1 || waiting[kept] != track {
		t.Errorf("%v wait for a section, want the one whose track is there", waiting)
	}
	if all, _ := s.count(now); all != 1 {
		t.Errorf("%d sections, want 1", all)
	}
	if mids := s.mids([]*slotOut{kept}); len(mids) != 1 || mids[0] != "" {
		t.Errorf("mids %q before any negotiation", mids)
	}
}

// A track that leaves a section does not take it away from the next track.
func TestSectionsSentInByThePeer(t *testing.T) {
	s, track := newSections(), &forward.Track{}
	old, next := &feed{up: track.Attach(deaf{})}, &feed{up: track.Attach(deaf{})}
	s.carry("0", old)
	s.carry("0", next)
	s.leave(old)
	if slot := s.in["0"]; old.slot.Load() != slot || next.slot.Load() != slot || slot.next != next.up {
		t.Error("the section does not carry the track that came last")
	}
	s.leave(next)
	s.leave(&feed{}) // one that no section carries
	if s.in["0"].next != nil {
		t.Error("the section carries a track that has left it")
	}
	s.reachable()
}
