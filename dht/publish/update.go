package publish

import (
	"errors"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
)

// strayedBy is how far, as a round trip time, a node's coordinate has to move
// to be published anew.
const strayedBy = 5 * time.Millisecond

// An update is the pending message to a holder of one topic.
type update struct {
	*pb.Entry
	base uint64 // sequence number of the base record that the holder then has, updated or not; 0: none
}

// merged is the pending update of a topic when e comes before old was sent: the
// newer record, and whether the topic is split.
func merged(old, e update) update {
	about := e
	if bare(e.Entry) {
		about = old
	}
	return update{&pb.Entry{
		Topic: e.Topic, Sealed: about.Sealed, Update: about.Update, Seq: about.Seq, Known: about.Known,
		Deeper: e.Deeper || old.Deeper,
	}, about.base}
}

// bare reports whether e neither carries nor withdraws a record.
func bare(e *pb.Entry) bool { return len(e.Sealed)+len(e.Update) == 0 && e.Seq == 0 }

// A publication is the record published in one topic: a base, and its latest
// update.
type publication struct {
	base   capacity.Record
	at     time.Time // when the base was published
	record capacity.Record
	sealed []byte           // the record, as updated
	delta  []byte           // nil: it is the base
	urgent bool             // it must not get lost
	sent   map[peer.ID]bool // holders that it is queued for, or sent to
}

// seal makes r the publication that replaces old, which may be nil: as an
// update of its base if that suffices, else as a base.
func seal(now time.Time, old *publication, r capacity.Record, key crypto.PrivKey) (*publication, error) {
	c := &publication{base: r, at: now, record: r, sent: make(map[peer.ID]bool)}
	if old != nil && now.Sub(old.at) < holder.WholeEvery && signed.Updatable(&old.base, &r) {
		c.urgent = old.record.State != r.State
		if c.record = r; !strayed(old.base.Coordinate, r.Coordinate) {
			c.record.Coordinate = old.base.Coordinate
		}
		delta, err := signed.SealUpdate(old.base, old.sealed, c.record, key)
		if err == nil {
			c.base, c.at, c.delta = old.base, old.at, delta
			_, c.sealed, err = signed.ApplyUpdate(old.base, old.sealed, delta)
		}
		if err == nil || !errors.Is(err, capacity.ErrTooLarge) {
			return c, err
		}
		c.base, c.at, c.record, c.delta, c.urgent = r, now, r, nil, false
	}
	var err error
	c.sealed, err = signed.SealRecord(r, key)
	return c, err
}

// strayed reports whether a node's coordinate has moved away from that in its
// base.
func strayed(a, b *coordinate.Coordinate) bool {
	if a == nil || b == nil {
		return a != b
	}
	return !a.IsCompatibleWith(b) || a.DistanceTo(b) >= strayedBy
}
