package publish

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/task"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/liveness"
	"weir/dht/pb"
)

const (
	// ackPatience, or three round trips if they take longer, is how long to
	// wait for the answer to a datagram before the batch is sent on a stream.
	ackPatience = 250 * time.Millisecond
	// maxDatagramEntries bounds the records in one datagram.
	maxDatagramEntries = 4
	// leaveTime bounds the wait for holders at the end.
	leaveTime = 500 * time.Millisecond
)

// Config is a Publisher's view of its node. Functions are called from several
// goroutines.
type Config struct {
	ID        peer.ID
	Key       crypto.PrivKey // of ID
	Directory directory.Directory
	Sharding  *directory.Sharding
	Table     *holder.Table // this node's, as a holder
	Live      *liveness.Detector

	// Sample returns the current state to publish: the node's record, without
	// the fields that publishing fills in, and one entry per stream carried.
	// Nil: nothing is published.
	Sample func() (capacity.Record, []capacity.StreamInfo)
	// Provisions are the regions for which this node starts servers.
	Provisions []string
	Addrs      func() []multiaddr.Multiaddr
	Coordinate func() *coordinate.Coordinate
	// Wall is the time by the clock to compare with other nodes' times.
	Wall func(now time.Time) time.Time
	// Audience identifies the inputs that the holders of topics depend on.
	Audience  func() Audience
	Connected func(p peer.ID) bool

	// Advertise sends entries to p, and returns p's reply and the round trip, 0
	// if it is no measurement. A nil reply without an error means that p has
	// refused them all.
	Advertise func(ctx context.Context, p peer.ID, entries []*pb.Entry) (*pb.AdvertiseReply, time.Duration, error)
	// Datagram sends m to p, and reports false if that is not possible.
	Datagram func(p peer.ID, m *pb.Datagram) (sent bool)
	// Acked is called with p's reply to records, after which time, and whether
	// it has accepted some.
	Acked func(p peer.ID, reply *pb.AdvertiseReply, rtt time.Duration, accepted bool)
	// Copied is called when a holder has a record of this node that another
	// process has made.
	Copied func()

	Log *slog.Logger
}

// A Publisher keeps a node's records at their holders. Close it after use.
type Publisher struct {
	cfg      Config
	schedule schedule // belongs to Run's goroutine
	kick     chan struct{}
	out      *deliveries
	acks     acks

	accepted chan struct{} // closed once a holder has accepted a record
	once     sync.Once     // closes accepted

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  task.Group // deliveries, one per holder
}

// New returns a Publisher, which sends nothing before [Publisher.Run].
func New(cfg Config) *Publisher {
	p := &Publisher{
		cfg: cfg, schedule: newSchedule(), kick: make(chan struct{}, 1),
		out: newDeliveries(), accepted: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// Close ends every delivery and waits for it to end. It may be called more than
// once.
func (p *Publisher) Close() error {
	p.tasks.Stop()
	p.cancel()
	p.tasks.Wait()
	return nil
}

// Run samples and publishes until ctx is done, and returns ctx.Err(). It is called
// once.
func (p *Publisher) Run(ctx context.Context) error {
	tick := time.NewTicker(holder.SampleEvery)
	defer tick.Stop()
	kicked := false
	for {
		kicked = p.publishDue(time.Now(), kicked)
		select {
		case <-p.kick:
			kicked = true
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Kick makes Run publish as soon as the pace allows: a new or ended stream at
// once, every other change half a second after the last time.
func (p *Publisher) Kick() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// publishDue publishes what is due at now. Owed means that the pace did not
// allow all that kicked asks for.
func (p *Publisher) publishDue(now time.Time, kicked bool) (owed bool) {
	p.reshard(now)
	p.spread(now)
	r, streams := p.cfg.Sample()
	drafts, gone, owed := p.schedule.due(now, p.homes(now, r.Region), r, streams, kicked)
	p.withdraw(now, gone, func(peer.ID) bool { return true })
	for _, d := range drafts {
		p.publish(now, d)
	}
	return owed
}

// reshard moves to another shard if the holders' reports ask for it, and sends
// split notices to the holders of coarser topics.
func (p *Publisher) reshard(now time.Time) {
	sharding := p.cfg.Sharding
	if sharding.Step(now) {
		p.cfg.Log.Info("publishing in another shard", "topic", sharding.Home())
	}
	for _, notice := range sharding.SplitNotices(now) {
		h, _ := p.cfg.Directory.Holders(now, notice.Topic)
		to := h.Remote
		if !notice.Split {
			to = to[:min(len(to), holder.QueryFirst)]
		} else if h.Self {
			p.cfg.Table.NoteSplit(now, now.Add(directory.NoticeTTL), notice.Topic, p.cfg.ID)
		}
		for _, id := range to {
			p.enqueue(id, update{&pb.Entry{Topic: string(notice.Topic), Deeper: notice.Split}, 0})
		}
	}
}

// homes are the topics of this node's capacity record, its home first.
func (p *Publisher) homes(now time.Time, region string) []holder.Topic {
	list := p.cfg.Sharding.Homes(now, region)
	if !p.cfg.Directory.Complete(now) && p.cfg.Sharding.InIndex(now) {
		list = append(list, holder.RegionsTopic)
	}
	for _, r := range p.cfg.Provisions {
		list = append(list, holder.ProvisionTopic(r))
	}
	return list
}

// publish seals d and queues it for its holders, this node included. It does
// not block.
func (p *Publisher) publish(now time.Time, d draft) {
	wall, addrs := p.cfg.Wall(now), p.cfg.Addrs()
	r := d.record
	r.Node = p.cfg.ID
	r.Seq = p.out.nextSeq(wall)
	r.Issued = time.UnixMilli(wall.UnixMilli())
	r.TTL = capacity.DefaultTTL
	if d.topic == holder.RegionsTopic {
		r.TTL = capacity.MaxTTL
	}
	r.Addrs = addrs[:min(len(addrs), capacity.MaxAddrs)]
	r.Coordinate = p.cfg.Coordinate()
	own, err := seal(now, p.out.in(d.topic), r, p.cfg.Key)
	if err != nil {
		p.cfg.Log.Warn("record not published", "topic", d.topic, "err", err)
		return
	}
	h, _ := p.cfg.Directory.Holders(now, d.topic)
	if h.Self {
		p.hold(now, d.topic, own)
		held, split := p.cfg.Table.Count(now, d.topic, p.cfg.Sharding.Quorum())
		p.cfg.Sharding.Report(now, d.topic, p.cfg.ID, held, split)
	}
	p.out.put(d.topic, own)
	p.send(d.topic, h)
}

// hold puts c into this node's own table.
func (p *Publisher) hold(now time.Time, topic holder.Topic, c *publication) {
	if err := p.cfg.Table.Put(now, now, topic, c.record, c.sealed); err != nil {
		p.cfg.Log.Debug("own record not held", "topic", topic, "err", err)
	}
}

// withdraw withdraws the topics from all holders that may have them and are
// wanted.
func (p *Publisher) withdraw(now time.Time, topics []holder.Topic, wanted func(peer.ID) bool) {
	for _, topic := range topics {
		seq := p.out.nextSeq(p.cfg.Wall(now))
		h, _ := p.cfg.Directory.Holders(now, topic)
		to := slices.Concat(h.Remote, p.out.withdraw(topic))
		_ = p.cfg.Table.Withdraw(now, topic, p.cfg.ID, seq) // only this node has newer ones of its own
		slices.Sort(to)
		for _, id := range slices.Compact(to) {
			if wanted(id) {
				p.enqueue(id, update{&pb.Entry{Topic: string(topic), Seq: seq}, 0})
			}
		}
	}
}

// Leave withdraws everything after Run has returned, and waits half a second at
// most for the connected holders to receive it.
func (p *Publisher) Leave() {
	p.withdraw(time.Now(), p.out.topics(), p.cfg.Connected)
	ctx, cancel := context.WithTimeout(p.ctx, leaveTime)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for p.out.underWay() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// spread sends published records to holders that have come up since. It costs
// next to nothing while the holders stay the same.
func (p *Publisher) spread(now time.Time) {
	if !p.out.changed(p.cfg.Audience()) {
		return
	}
	for _, topic := range p.out.topics() {
		h, _ := p.cfg.Directory.Holders(now, topic)
		if own := p.out.in(topic); own != nil && h.Self {
			p.hold(now, topic, own) // the node may have just become a holder
		}
		p.send(topic, h)
	}
}

// send queues the record published in topic for those of its holders that were
// not sent it.
func (p *Publisher) send(topic holder.Topic, h directory.Holders) {
	var known []byte
	if !h.All {
		holders := h.Remote
		if h.Self {
			holders = append(slices.Clip(holders), p.cfg.ID)
		}
		known = p.cfg.Directory.Known(holders)
	}
	for id, e := range p.out.owed(topic, h.Remote, known) {
		p.enqueue(id, e)
	}
}

// enqueue adds e to id's pending updates, and starts a delivery if none is
// running.
func (p *Publisher) enqueue(id peer.ID, e update) {
	if p.out.enqueue(id, e) && !p.tasks.Go(func() { p.deliver(id) }) {
		p.out.drop(id)
	}
}

// deliver sends id its pending updates until there are none left or id fails.
func (p *Publisher) deliver(id peer.ID) {
	for {
		batch := p.out.take(id)
		if len(batch) == 0 {
			return
		}
		if err := p.advertise(id, batch); err != nil {
			p.cfg.Log.Debug("records not delivered", "peer", id, "err", err)
			p.out.missed(id, batch)
			return
		}
	}
}

// advertise sends one batch and takes in the holder's reply.
func (p *Publisher) advertise(id peer.ID, batch []update) error {
	if p.byDatagram(id, batch) {
		return nil
	}
	ctx, cancel := context.WithTimeout(p.ctx, max(time.Second, 4*p.cfg.Live.RTT(id)))
	defer cancel()
	entries := make([]*pb.Entry, len(batch))
	for i, e := range batch {
		entries[i] = e.Entry
	}
	reply, rtt, err := p.cfg.Advertise(ctx, id, entries)
	if err != nil {
		return err
	}
	p.acked(id, batch, reply, rtt)
	return nil
}

// byDatagram sends the batch to id by datagram and reports whether id is
// presumed to have it: it was sent, and confirmed where that is required. It
// sends only updates of records.
func (p *Publisher) byDatagram(id peer.ID, batch []update) bool {
	if len(batch) > maxDatagramEntries || slices.ContainsFunc(batch, func(e update) bool { return len(e.Update) == 0 || e.Deeper }) {
		return false
	}
	confirm := !p.out.mayLose(time.Now(), id, batch)
	m := &pb.Datagram{}
	for _, e := range batch {
		sent := &pb.Entry{Topic: e.Topic, Update: e.Update}
		if confirm {
			sent.Known = e.Known
		}
		m.Entries = append(m.Entries, sent)
	}
	if !confirm {
		return p.cfg.Datagram(id, m)
	}
	answer := p.acks.await(id, m)
	defer p.acks.forget(id)
	began := time.Now()
	if !p.cfg.Datagram(id, m) {
		return false
	}
	late := time.NewTimer(max(ackPatience, 3*p.cfg.Live.RTT(id)))
	defer late.Stop()
	select {
	case reply := <-answer:
		return p.acked(id, batch, reply, time.Since(began))
	case <-late.C:
	case <-p.ctx.Done():
	}
	return false
}

// acked takes in the reply of id, a holder, to the batch: one result for each
// entry. It reports false, and does nothing, for an invalid reply.
func (p *Publisher) acked(id peer.ID, batch []update, reply *pb.AdvertiseReply, rtt time.Duration) bool {
	if reply == nil || len(reply.Results) != len(batch) {
		p.cfg.Log.Debug("records not taken", "peer", id)
		return false
	}
	accepted := false
	now := time.Now()
	for i, r := range reply.Results {
		topic := holder.Topic(batch[i].Topic)
		if p.out.foreign(r.Had) {
			p.cfg.Copied()
		}
		if r.Refused != "" {
			p.cfg.Log.Debug("record refused by holder", "peer", id, "topic", topic, "reason", r.Refused)
			if len(batch[i].Update) > 0 {
				p.out.lacks(id, topic)
			}
			continue
		}
		p.cfg.Sharding.Report(now, topic, id, int(r.Held), r.Split)
		if batch[i].base > 0 { // else the next record is to be confirmed again
			accepted = true
			p.out.accept(now, id, topic, batch[i].base)
		}
	}
	p.cfg.Acked(id, reply, rtt, accepted)
	if accepted {
		p.once.Do(func() { close(p.accepted) })
	}
	return true
}

// Accepted is closed once a holder has accepted a record.
func (p *Publisher) Accepted() <-chan struct{} { return p.accepted }

// Answered takes in id's answer to a datagram of this node.
func (p *Publisher) Answered(id peer.ID, datagram uint32, reply *pb.AdvertiseReply) {
	p.acks.answered(id, datagram, reply)
}

// Lacks has id sent the whole record in topic: it has no base to update.
func (p *Publisher) Lacks(id peer.ID, topic holder.Topic) { p.out.lacks(id, topic) }

// Doubt makes every holder confirm the next update, if id, which does not
// answer, is a holder of this node's records: others may be gone, too.
func (p *Publisher) Doubt(id peer.ID) {
	if p.out.doubt(id) {
		p.Kick()
	}
}

// Foreign reports whether a record of this node with that sequence number was
// made by another process.
func (p *Publisher) Foreign(seq uint64) bool { return p.out.foreign(seq) }

// Own returns the node's capacity record as published last.
func (p *Publisher) Own() (capacity.Record, bool) {
	r, _, ok := p.out.published(holder.CapacityTopic())
	return r, ok
}

// Published returns the node's record in topic as published last, and its
// sealed bytes; for a capacity topic, that of any capacity topic.
func (p *Publisher) Published(topic holder.Topic) (r capacity.Record, sealed []byte, ok bool) {
	return p.out.published(topic)
}

// Sealed returns up to max of the node's records, the capacity one first.
func (p *Publisher) Sealed(max int) [][]byte { return p.out.sealed(max) }
