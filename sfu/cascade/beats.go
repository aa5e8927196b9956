package cascade

import (
	"fmt"
	"time"

	"weir/sfu/pb"
	"weir/sfu/tree"
)

const (
	// beatBurst and beatRate bound the beats of one pull that are passed on: an
	// origin counts 5 a second, and a hold-up on the way may bunch some.
	beatBurst = 10
	beatRate  = 10 // a second
)

// beats are the beats of one upstream. The link's reader calls its methods, and
// the tree receives from news.
type beats struct {
	first *tree.Beat // as of the subscription; nil: the peer knows no beats. Constant once the subscription is answered
	came  time.Time  // first; constant like it
	news  chan tree.Beat

	counted bool   // count holds
	count   uint64 // the highest by the present path
	spare   float64
	at      time.Time // of spare
}

func newBeats() beats { return beats{news: make(chan tree.Beat, 1)} }

// subscribed takes the beat of an accepted subscription, if the peer sent one.
func (b *beats) subscribed(m *pb.Beat) {
	if m == nil {
		return
	}
	first := beatFrom(m)
	b.first, b.came, b.count, b.counted = &first, time.Now(), m.Count, true
}

// moved begins anew: by another path the count may be lower. Beats that only go
// round in a circle rise no further, since a path that comes back ends the pull.
func (b *beats) moved() { b.counted = false }

// take passes on a beat whose count is higher than all before it, and reports
// false if such beats come faster than any origin counts.
func (b *beats) take(m *pb.Beat, now time.Time) bool {
	if b.counted && m.Count <= b.count {
		return true
	}
	if b.at.IsZero() {
		b.spare = beatBurst
	} else {
		b.spare = min(beatBurst, b.spare+now.Sub(b.at).Seconds()*beatRate)
	}
	b.at = now
	if b.spare < 1 {
		return false
	}
	b.spare--
	b.count, b.counted = m.Count, true
	select {
	case <-b.news: // the last one counts
	default:
	}
	b.news <- beatFrom(m) // has room: only the reader sends
	return true
}

// Beat returns the newest beat when the pull was set up, of the age that it has
// now.
func (in *upstream) Beat() (tree.Beat, bool) {
	first := in.beats.first
	if first == nil {
		return tree.Beat{}, false
	}
	return tree.Beat{Count: first.Count, Age: first.Age + time.Since(in.beats.came)}, true
}

// Beats receives later beats; the last one counts.
func (in *upstream) Beats() <-chan tree.Beat { return in.beats.news }

// heard takes the peer's beats. An error ends the link.
func (l *Link) heard(m *pb.Beats) error {
	if len(m.Beats) > MaxSlots {
		return fmt.Errorf("beats of %d streams", len(m.Beats))
	}
	now := time.Now()
	for _, b := range m.Beats {
		if in := l.upstream(b.Pull); in != nil && !in.beats.take(b, now) {
			if l.links.beatsIgnored.Add(1)%beatBurst == 1 {
				l.links.cfg.Log.Debug("beats come faster than an origin counts", "peer", l.Peer, "stream", in.stream)
			}
		}
	}
	return nil
}

// sendBeats tells the peer the beats that are new of the streams that it pulls.
func (l *Link) sendBeats(now time.Time) {
	var all []*pb.Beat
	l.mu.Lock()
	for _, b := range l.downstreams {
		if beat := b.stream.Beat(now); b.beats && beat.Count != b.told {
			b.told = beat.Count
			all = append(all, beatOf(b.pull, beat))
		}
	}
	l.mu.Unlock()
	if len(all) > 0 {
		l.send(&pb.Message{Body: &pb.Message_Beats{Beats: &pb.Beats{Beats: all}}})
	}
}

func beatOf(pull uint64, b tree.Beat) *pb.Beat {
	return &pb.Beat{Pull: pull, Count: b.Count, Age: uint32(min(b.Age, time.Hour).Milliseconds())}
}

func beatFrom(m *pb.Beat) tree.Beat {
	return tree.Beat{Count: m.Count, Age: time.Duration(m.Age) * time.Millisecond}
}
