package rtc

import (
	"fmt"
	"strings"
	"time"

	"weir/capacity"
	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/sdp"
)

// Look reports, as events, sections that have begun to send nothing; since is
// when media could flow.
func (in *Ingress) Look(now, since time.Time) {
	in.mu.Lock()
	for _, t := range in.sections {
		l := t.line
		silent := now.Sub(l.last)
		if l.last.IsZero() {
			silent = now.Sub(since)
		}
		if t.encoding > 0 || l.stalled || silent < stallAfter {
			continue
		}
		l.stalled = true
		e := event.Event{Kind: event.MediaStalled, Reason: "silent", Elapsed: capacity.Milliseconds(silent), Detail: fmt.Sprintf("%s sends nothing any more, for %v", t, silent.Round(time.Second))}
		if l.last.IsZero() {
			e.Reason = "never-sent"
			e.Detail = fmt.Sprintf("%s was accepted and sends nothing, %v after the connection was up", t, silent.Round(time.Second))
			if n := in.drops.Sum(); n > 0 {
				e.Detail += fmt.Sprintf("; %d packets came that belong to no section or stream that is forwarded", n)
			}
		}
		in.events = append(in.events, e)
	}
	events := in.events
	in.events = nil
	in.mu.Unlock()
	for _, e := range events {
		in.event(e)
	}
}

// Silence returns how long nothing has been received, counted from since at the
// earliest.
func (in *Ingress) Silence(now, since time.Time) time.Duration {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.heard.After(since) {
		since = in.heard
	}
	return now.Sub(since)
}

func (t *section) String() string {
	_, codec, _ := strings.Cut(t.track.Codec.MimeType, "/")
	return fmt.Sprintf("section %d (%s, %s)", t.offered.Index, sdp.KindOf(t.track.Codec.MimeType), codec)
}

// NotForwarded counts the publisher's packets that were not forwarded, by
// reason, without zeros.
func (in *Ingress) NotForwarded() map[string]int64 { return in.drops.Counts(false) }

// Traffic returns the totals received and forwarded.
func (in *Ingress) Traffic() forward.Traffic {
	var all forward.Traffic
	for _, t := range in.sections { // fixed by now
		all.Packets += t.packets.Load()
		all.Bytes += t.bytes.Load()
		all.Keyframes += t.keyframes.Load()
		all.Lost += max(0, t.lost.Load()) // duplicates are counted against it
	}
	return all
}

// Status returns the status of the sections.
func (in *Ingress) Status(now time.Time) []sdp.SectionStatus {
	in.mu.Lock()
	defer in.mu.Unlock()
	var all []sdp.SectionStatus
	for _, t := range in.sections {
		_, codec, _ := strings.Cut(t.track.Codec.MimeType, "/")
		st := sdp.SectionStatus{
			Section: t.offered.Index, Mid: t.offered.MID, Kind: sdp.KindOf(t.track.Codec.MimeType).String(), Codec: codec, State: "flowing",
			Layer: t.track.RID, Packets: t.packets.Load(), Lost: t.lost.Load(), Changes: t.Changes(),
		}
		switch {
		case t.line.stalled:
			st.State = "stalled"
		case t.Current() == nil:
			st.State = "waiting"
		}
		if size := t.track.Layers()[0]; size.Width > 0 {
			st.Width, st.Height = size.Width, size.Height
		}
		if s := t.Current(); s != nil {
			st.SSRC, st.Silent = s.SSRC, capacity.Milliseconds(now.Sub(t.last))
		}
		all = append(all, st)
	}
	return all
}
