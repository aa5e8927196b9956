package publish

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	// maxEntries bounds the records of one ADVERTISE.
	maxEntries = 64
	// indexConfirmEvery is [holder.ConfirmEvery] in the index of regions, whose
	// records are renewed less often.
	indexConfirmEvery = 3 * indexKeepalive
)

// deliveries are a node's published records and the part that each holder has
// yet to receive. At most one request per holder is in flight; later updates
// wait, newer records replacing older ones, so a hanging holder delays no other
// and costs no memory. Time is passed in.
type deliveries struct {
	mu       sync.Mutex
	sequence sequence
	own      map[holder.Topic]*publication // currently published
	pending  map[peer.ID]map[holder.Topic]update
	busy     map[peer.ID]bool
	accepted map[ackKey]acceptance // latest acceptance of each holder in each topic
	audience Audience
	owing    bool // a holder has to be sent its records again
}

type ackKey struct {
	holder peer.ID
	topic  holder.Topic
}

type acceptance struct {
	at   time.Time
	base uint64 // sequence number of the base record that the holder has, updated or not
	anew bool   // it has to confirm the next update
}

// Audience identifies the inputs that the holders of topics depend on. While it
// is unchanged, no holder needs a record that is published already.
type Audience struct {
	Liveness, Cache uint64 // generations
	Peers           []peer.ID
}

func newDeliveries() *deliveries {
	return &deliveries{
		own: make(map[holder.Topic]*publication), pending: make(map[peer.ID]map[holder.Topic]update),
		busy: make(map[peer.ID]bool), accepted: make(map[ackKey]acceptance),
	}
}

// nextSeq returns the next sequence number; wall is the time by the clock to
// compare with other nodes' times.
func (d *deliveries) nextSeq(wall time.Time) uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sequence.next(wall)
}

func (d *deliveries) foreign(seq uint64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sequence.foreign(seq)
}

// topics are the topics with a published record.
func (d *deliveries) topics() []holder.Topic {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.own))
}

// sealed returns up to max of the node's own records, the capacity one first.
func (d *deliveries) sealed(max int) [][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	var list [][]byte
	if c := d.home(); c != nil && max > 0 {
		list = append(list, c.sealed)
	}
	for topic, c := range d.own {
		if len(list) >= max {
			break
		}
		if topic.Stream() != "" {
			list = append(list, c.sealed)
		}
	}
	return list
}

// published returns the node's own record in topic as published last; for a
// capacity topic, that of any capacity topic.
func (d *deliveries) published(topic holder.Topic) (capacity.Record, []byte, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.own[topic]
	if topic.Stream() == "" {
		c = d.home()
	}
	if c == nil {
		return capacity.Record{}, nil, false
	}
	return c.record, c.sealed, true
}

// in returns the publication in exactly this topic, or nil. The caller does not
// change it.
func (d *deliveries) in(topic holder.Topic) *publication {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.own[topic]
}

// home returns the newest capacity record published, or nil. The caller holds
// mu.
func (d *deliveries) home() *publication {
	var newest *publication
	for topic, c := range d.own {
		if topic.Stream() == "" && (newest == nil || c.record.Seq > newest.record.Seq) {
			newest = c
		}
	}
	return newest
}

// put makes c the publication in topic.
func (d *deliveries) put(topic holder.Topic, c *publication) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own[topic] = c
}

// withdraw removes the publication in topic, and returns the holders that may
// have it.
func (d *deliveries) withdraw(topic holder.Topic) (to []peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.own[topic]; c != nil {
		to = slices.Collect(maps.Keys(c.sent))
	}
	delete(d.own, topic)
	return to
}

// owed returns the updates for those of holders that were not sent the
// publication in topic, and counts them as sent: the delta if a holder has the
// base, else the whole record. Known is sent along.
func (d *deliveries) owed(topic holder.Topic, holders []peer.ID, known []byte) map[peer.ID]update {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.own[topic]
	if c == nil {
		return nil
	}
	owed := make(map[peer.ID]update)
	for _, p := range holders {
		if c.sent[p] {
			continue
		}
		c.sent[p] = true
		e := &pb.Entry{Topic: string(topic), Known: known}
		if c.delta != nil && d.accepted[ackKey{p, topic}].base == c.base.Seq {
			e.Update = c.delta
		} else {
			e.Sealed = c.sealed
		}
		owed[p] = update{e, c.base.Seq}
	}
	return owed
}

// changed notes the audience, and reports whether it has changed, or a holder
// has to be sent its records again.
func (d *deliveries) changed(now Audience) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, owing := d.audience, d.owing
	d.audience, d.owing = now, false
	return owing || was.Liveness != now.Liveness || was.Cache != now.Cache || !slices.Equal(was.Peers, now.Peers)
}

// enqueue adds e to p's pending updates. It reports true if no request to p is
// in flight; one counts as in flight from then on.
func (d *deliveries) enqueue(p peer.ID, e update) (begin bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pending[p] == nil {
		d.pending[p] = make(map[holder.Topic]update)
	}
	topic := holder.Topic(e.Topic)
	if old, waits := d.pending[p][topic]; waits {
		e = merged(old, e)
	}
	d.pending[p][topic] = e
	begin = !d.busy[p]
	d.busy[p] = true
	return begin
}

// take removes up to maxEntries of p's pending updates. If there are none, no
// request to p is in flight any more.
func (d *deliveries) take(p peer.ID) []update {
	d.mu.Lock()
	defer d.mu.Unlock()
	var batch []update
	for topic, e := range d.pending[p] {
		if len(batch) == maxEntries {
			break
		}
		batch = append(batch, e)
		delete(d.pending[p], topic)
	}
	if len(batch) == 0 {
		d.close(p)
	}
	return batch
}

// missed drops the batch, which p did not get, and p's pending updates. They
// are owed again, as whole records, at the next sample, unless p counts as down
// by then.
func (d *deliveries) missed(p peer.ID, batch []update) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.accepted, func(at ackKey, _ acceptance) bool { return at.holder == p })
	for _, e := range slices.AppendSeq(batch, maps.Values(d.pending[p])) {
		d.owe(p, holder.Topic(e.Topic))
	}
	d.close(p)
}

// lacks has p sent the whole record in topic at the next sample: it has no base
// to update.
func (d *deliveries) lacks(p peer.ID, topic holder.Topic) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.owe(p, topic)
}

// owe is called with mu held.
func (d *deliveries) owe(p peer.ID, topic holder.Topic) {
	delete(d.accepted, ackKey{p, topic})
	if c := d.own[topic]; c != nil && c.sent[p] {
		delete(c.sent, p)
		d.owing = true
	}
}

// close is called with mu held.
func (d *deliveries) close(p peer.ID) {
	delete(d.pending, p)
	delete(d.busy, p)
}

// drop forgets p's pending updates: nothing will be sent any more.
func (d *deliveries) drop(p peer.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.close(p)
}

// underWay reports whether a request to any holder is in flight.
func (d *deliveries) underWay() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.busy) > 0
}

// accept notes that p has accepted base, or an update of it, in topic.
func (d *deliveries) accept(now time.Time, p peer.ID, topic holder.Topic, base uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.accepted[ackKey{p, topic}] = acceptance{at: now, base: base}
	maps.DeleteFunc(d.accepted, func(_ ackKey, old acceptance) bool { return now.Sub(old.at) > holder.WholeEvery })
}

// mayLose reports whether the batch consists of updates of records, none of
// them urgent, and p has confirmed something lately in each of their topics.
func (d *deliveries) mayLose(now time.Time, p peer.ID, batch []update) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !slices.ContainsFunc(batch, func(e update) bool {
		topic, every := holder.Topic(e.Topic), holder.ConfirmEvery
		if topic == holder.RegionsTopic {
			every = indexConfirmEvery
		}
		own, last := d.own[topic], d.accepted[ackKey{p, topic}]
		return own == nil || own.urgent || last.anew || now.Sub(last.at) >= every
	})
}

// doubt makes every holder confirm the next update, if p is a holder of this
// node's records, and reports whether it is.
func (d *deliveries) doubt(p peer.ID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	holds := false
	for _, c := range d.own {
		holds = holds || c.sent[p]
	}
	if holds {
		for at, c := range d.accepted {
			c.anew = true
			d.accepted[at] = c
		}
	}
	return holds
}
