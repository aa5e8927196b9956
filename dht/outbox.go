package dht

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/serf/coordinate"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

// strayedBy is how far, in time, a node's coordinate has moved when that is
// said anew.
const strayedBy = 5 * time.Millisecond

// An outbox holds what this node publishes and what of it each holder still
// has to get. At most one ADVERTISE is under way per holder; what comes up
// meanwhile waits, newer records in the place of older ones, so a holder that
// hangs delays nobody and costs no memory.
type outbox struct {
	mu      sync.Mutex
	seq     uint64             // the last one given out
	given   seqLog             // those before it
	own     map[Topic]*ownCopy // what is published now
	pending map[peer.ID]map[Topic]parcel
	busy    map[peer.ID]bool
	// confirmed is what each holder last accepted in each topic.
	confirmed map[confirmedAt]confirmation
	audience
}

type confirmedAt struct {
	holder peer.ID
	topic  Topic
}

type confirmation struct {
	at   time.Time
	base uint64 // sequence number of the record that it has, amended or not
	anew bool   // it is to confirm what comes next
}

// A parcel is what is left to say to a holder of one topic.
type parcel struct {
	*pb.Entry
	base uint64 // sequence number of the record that the holder then has, amended or not; 0: none
}

// An ownCopy is what is published in one topic: a base, and what amends it.
type ownCopy struct {
	base      capacity.Record
	at        time.Time // when the base was published
	record    capacity.Record
	sealed    []byte           // the record, as amended
	amendment []byte           // nil: it is the base
	urgent    bool             // it says what must not get lost
	sent      map[peer.ID]bool // holders it was put in the box for
}

// audience is what the sets of holders depended on when they were last
// compared with what was sent.
type audience struct {
	reach, cache uint64
	table        []peer.ID
}

// nextSeq returns a sequence number above all before it, in this life and, by
// the clock, in former ones.
func (o *outbox) nextSeq(now time.Time) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seq = max(uint64(now.UnixMilli()), o.seq+1)
	o.given.add(o.seq)
	return o.seq
}

// sealed returns up to max of the node's own records, the capacity one first.
func (o *outbox) sealed(max int) [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list [][]byte
	if c := o.home(); c != nil && max > 0 {
		list = append(list, c.sealed)
	}
	for topic, c := range o.own {
		if len(list) >= max {
			break
		}
		if topic.Stream() != "" {
			list = append(list, c.sealed)
		}
	}
	return list
}

// published returns the node's own record in topic as published last; of the
// topics of capacity records one is as good as another.
func (o *outbox) published(topic Topic) (capacity.Record, []byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	c := o.own[topic]
	if topic.Stream() == "" {
		c = o.home()
	}
	if c == nil {
		return capacity.Record{}, nil, false
	}
	return c.record, c.sealed, true
}

// exactly returns the node's own record as published last in this very topic.
func (o *outbox) exactly(topic Topic) (capacity.Record, []byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.own[topic]; c != nil {
		return c.record, c.sealed, true
	}
	return capacity.Record{}, nil, false
}

// home returns the newest capacity record published, or nil. The caller holds
// mu.
func (o *outbox) home() *ownCopy {
	var newest *ownCopy
	for topic, c := range o.own {
		if topic.Stream() == "" && (newest == nil || c.record.Seq > newest.record.Seq) {
			newest = c
		}
	}
	return newest
}

// me returns the node's own capacity record as published last.
func (o *outbox) me() (capacity.Record, bool) {
	r, _, ok := o.published(CapacityTopic())
	return r, ok
}

func (n *Node) sample() (capacity.Record, []capacity.Carriage) {
	now := time.Now()
	if n.sharding.Step(now) {
		n.log.Info("publishing in another shard", "topic", n.sharding.Home())
	}
	for _, p := range n.sharding.SplitNotices(now) {
		h, _ := n.dir.Holders(time.Now(), p.Topic)
		to := h.Remote
		if !p.Split {
			to = to[:min(len(to), asksFirst)]
		} else if h.Self {
			n.table.Post(now, now.Add(directory.NoticeTTL), p.Topic, n.ID())
		}
		for _, holder := range to {
			n.enqueue(holder, parcel{&pb.Entry{Topic: string(p.Topic), Deeper: p.Split}, 0})
		}
	}
	n.spread()
	return n.cfg.Sample()
}

// homes are the topics of this node's capacity record, its home first.
func (n *Node) homes(now time.Time, region string) []Topic {
	list := n.sharding.Homes(now, region)
	if !n.dir.Whole(now) && n.sharding.InIndex(now) {
		list = append(list, holder.RegionsTopic)
	}
	if p := n.cfg.Provisioner; p != nil {
		for _, r := range p.Regions {
			list = append(list, ProvisionTopic(r))
		}
	}
	return list
}

// publish seals the claims and puts them in the box for their holders, this
// node included. It does not wait for anyone.
func (n *Node) publish(claims []claim) {
	now := time.Now()
	addrs := n.host.Addrs()
	for _, c := range claims {
		r := c.record
		r.Node = n.ID()
		r.Seq = n.outbox.nextSeq(n.wall(now))
		r.Issued = time.UnixMilli(n.wall(now).UnixMilli())
		r.TTL = capacity.DefaultTTL
		if c.topic == holder.RegionsTopic {
			r.TTL = capacity.MaxTTL
		}
		r.Addrs = addrs[:min(len(addrs), capacity.MaxAddrs)]
		r.Coordinate = n.coords.Here()
		own, err := n.outbox.copyOf(now, c.topic, r, n.cfg.Key)
		if err != nil {
			n.log.Warn("record not published", "topic", c.topic, "err", err)
			continue
		}
		h, _ := n.dir.Holders(time.Now(), c.topic)
		if h.Self {
			if err := n.table.Put(now, now, c.topic, own.record, own.sealed); err != nil {
				n.log.Debug("own record not held", "topic", c.topic, "err", err)
			}
			n.heardSelf(now, c.topic)
		}
		n.outbox.mu.Lock()
		if n.outbox.own == nil {
			n.outbox.own = make(map[Topic]*ownCopy)
		}
		n.outbox.own[c.topic] = own
		n.outbox.mu.Unlock()
		n.send(c.topic, h)
	}
}

// copyOf seals r to be published in topic: as an amendment of what is published
// there if that will do, else as a base.
func (o *outbox) copyOf(now time.Time, topic Topic, r capacity.Record, key crypto.PrivKey) (*ownCopy, error) {
	o.mu.Lock()
	old := o.own[topic]
	o.mu.Unlock()
	c := &ownCopy{base: r, at: now, record: r, sent: make(map[peer.ID]bool)}
	if old != nil && now.Sub(old.at) < holder.WholeEvery && signed.Updatable(&old.base, &r) {
		c.urgent = old.record.State != r.State
		if c.record = r; !strayed(old.base.Coordinate, r.Coordinate) {
			c.record.Coordinate = old.base.Coordinate
		}
		amendment, err := signed.SealUpdate(old.base, old.sealed, c.record, key)
		if err == nil {
			c.base, c.at, c.amendment = old.base, old.at, amendment
			_, c.sealed, err = signed.ApplyUpdate(old.base, old.sealed, amendment)
		}
		if err == nil || !errors.Is(err, capacity.ErrTooLarge) {
			return c, err
		}
		c.base, c.at, c.record, c.amendment, c.urgent = r, now, r, nil, false
	}
	var err error
	c.sealed, err = signed.SealRecord(r, key)
	return c, err
}

// strayed reports whether a node is no longer where its base says.
func strayed(a, b *coordinate.Coordinate) bool {
	if a == nil || b == nil {
		return a != b
	}
	return !a.IsCompatibleWith(b) || a.DistanceTo(b) >= strayedBy
}

// withdraw takes the topics back from everyone who may hold them.
func (n *Node) withdraw(topics []Topic) { n.withdrawFrom(topics, func(peer.ID) bool { return true }) }

func (n *Node) withdrawFrom(topics []Topic, wanted func(peer.ID) bool) {
	now := time.Now()
	for _, topic := range topics {
		seq := n.outbox.nextSeq(n.wall(now))
		h, _ := n.dir.Holders(time.Now(), topic)
		to := h.Remote
		n.outbox.mu.Lock()
		if c := n.outbox.own[topic]; c != nil {
			to = slices.AppendSeq(slices.Clone(to), maps.Keys(c.sent))
		}
		delete(n.outbox.own, topic)
		n.outbox.mu.Unlock()
		_ = n.table.Withdraw(now, topic, n.ID(), seq) // only we are newer than ourselves
		slices.Sort(to)
		for _, p := range slices.Compact(to) {
			if wanted(p) {
				n.enqueue(p, parcel{&pb.Entry{Topic: string(topic), Seq: seq}, 0})
			}
		}
	}
}

// leave withdraws everything and waits half a second at most for the holders
// it is connected with to hear of it.
func (n *Node) leave() {
	n.outbox.mu.Lock()
	topics := slices.Collect(maps.Keys(n.outbox.own))
	n.outbox.mu.Unlock()
	n.withdrawFrom(topics, func(p peer.ID) bool { return n.host.Network().Connectedness(p) == network.Connected })
	ctx, cancel := context.WithTimeout(n.ctx, 500*time.Millisecond)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for n.outbox.underWay() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (o *outbox) underWay() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.busy) > 0
}

// spread hands what is published already to holders that have come up since.
// It costs next to nothing while nobody comes or goes.
func (n *Node) spread() {
	now := audience{n.reach.Generation(), n.cache.Changes(), append(n.kad.RoutingTable().ListPeers(), n.servers()...)}
	slices.Sort(now.table)
	n.outbox.mu.Lock()
	was := n.outbox.audience
	n.outbox.audience = now
	topics := slices.Collect(maps.Keys(n.outbox.own))
	n.outbox.mu.Unlock()
	if was.reach == now.reach && was.cache == now.cache && slices.Equal(was.table, now.table) {
		return
	}
	for _, topic := range topics {
		h, _ := n.dir.Holders(time.Now(), topic)
		if r, sealed, ok := n.outbox.exactly(topic); ok && h.Self {
			_ = n.table.Put(time.Now(), time.Now(), topic, r, sealed) // a holder since just now, perhaps
		}
		n.send(topic, h)
	}
}

// send puts the record published in topic in the box for those of its holders
// that it was not put in for yet: what amends it for those that have the base,
// else all of it.
func (n *Node) send(topic Topic, h directory.Holders) {
	var known []byte
	if !h.All {
		holders := h.Remote
		if h.Self {
			holders = append(slices.Clip(holders), n.ID())
		}
		known = n.dir.Known(holders)
	}
	fresh := make(map[peer.ID]parcel)
	n.outbox.mu.Lock()
	if c := n.outbox.own[topic]; c != nil {
		for _, p := range h.Remote {
			if c.sent[p] {
				continue
			}
			c.sent[p] = true
			e := &pb.Entry{Topic: string(topic), Known: known}
			if c.amendment != nil && n.outbox.confirmed[confirmedAt{p, topic}].base == c.base.Seq {
				e.Amendment = c.amendment
			} else {
				e.Sealed = c.sealed
			}
			fresh[p] = parcel{e, c.base.Seq}
		}
	}
	n.outbox.mu.Unlock()
	for p, e := range fresh {
		n.enqueue(p, e)
	}
}

// enqueue puts e in the box for p, and sees to it that the box is emptied.
func (n *Node) enqueue(p peer.ID, e parcel) {
	o := &n.outbox
	o.mu.Lock()
	if o.pending == nil {
		o.pending = make(map[peer.ID]map[Topic]parcel)
		o.busy = make(map[peer.ID]bool)
	}
	if o.pending[p] == nil {
		o.pending[p] = make(map[Topic]parcel)
	}
	topic := Topic(e.Topic)
	if old, waits := o.pending[p][topic]; waits {
		e = merged(old, e)
	}
	o.pending[p][topic] = e
	begin := !o.busy[p]
	if begin {
		o.busy[p] = true
	}
	o.mu.Unlock()
	if begin && !n.start(func() { n.deliver(p) }) {
		o.mu.Lock()
		delete(o.busy, p)
		delete(o.pending, p)
		o.mu.Unlock()
	}
}

// merged is what is left to say of a topic when e comes up before old was sent:
// the newer record, and whether to go deeper.
func merged(old, e parcel) parcel {
	about := e
	if bare(e.Entry) {
		about = old
	}
	return parcel{&pb.Entry{
		Topic: e.Topic, Sealed: about.Sealed, Amendment: about.Amendment, Seq: about.Seq, Known: about.Known,
		Deeper: e.Deeper || old.Deeper,
	}, about.base}
}

// bare reports whether e is about no record, neither a new one nor one that is
// withdrawn.
func bare(e *pb.Entry) bool { return len(e.Sealed)+len(e.Amendment) == 0 && e.Seq == 0 }

// deliver sends p what is in its box until that is empty or p fails.
func (n *Node) deliver(p peer.ID) {
	for {
		batch := n.outbox.take(p)
		if len(batch) == 0 {
			return
		}
		if err := n.advertiseTo(p, batch); err != nil {
			n.log.Debug("records not delivered", "peer", p, "err", err)
			n.outbox.missed(p, batch)
			return
		}
	}
}

// take removes up to maxEntries of what is in p's box. When there is nothing,
// p's box is closed.
func (o *outbox) take(p peer.ID) []parcel {
	o.mu.Lock()
	defer o.mu.Unlock()
	var batch []parcel
	for topic, e := range o.pending[p] {
		if len(batch) == maxEntries {
			break
		}
		batch = append(batch, e)
		delete(o.pending[p], topic)
	}
	if len(batch) == 0 {
		delete(o.pending, p)
		delete(o.busy, p)
	}
	return batch
}

// missed drops what is in p's box and closes it. What p has not got is put in
// again, whole, at the next sample, unless p counts as down by then.
func (o *outbox) missed(p peer.ID, batch []parcel) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.confirmed, func(at confirmedAt, _ confirmation) bool { return at.holder == p })
	for _, e := range slices.AppendSeq(batch, maps.Values(o.pending[p])) {
		o.owe(p, Topic(e.Topic))
	}
	delete(o.pending, p)
	delete(o.busy, p)
}

// refused has p sent all of what is published in topic at the next sample: it
// lacks what was amended.
func (o *outbox) refused(p peer.ID, topic Topic) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.owe(p, topic)
}

// owe is called with mu held.
func (o *outbox) owe(p peer.ID, topic Topic) {
	delete(o.confirmed, confirmedAt{p, topic})
	if c := o.own[topic]; c != nil && c.sent[p] {
		delete(c.sent, p)
		o.audience = audience{}
	}
}

// advertiseTo sends one batch and takes in what the holder answers.
func (n *Node) advertiseTo(p peer.ID, batch []parcel) error {
	if n.amendByDatagram(p, batch) {
		return nil
	}
	ctx, cancel := context.WithTimeout(n.ctx, max(time.Second, 4*n.reach.RTT(p)))
	defer cancel()
	advertise := &pb.Advertise{}
	for _, e := range batch {
		advertise.Entries = append(advertise.Entries, e.Entry)
	}
	req := &pb.Request{Op: &pb.Request_Advertise{Advertise: advertise}}
	var resp pb.Response
	rtt, _, err := n.call(ctx, p, n.records, req, &resp, maxAdvertiseReply)
	if err != nil {
		n.failed(p, err)
		return err
	}
	n.answered(p, rtt)
	reply := resp.GetAdvertise()
	if reply == nil || len(reply.Results) != len(batch) {
		n.log.Debug("records not taken", "peer", p, "err", resp.Error)
		return nil
	}
	n.confirmed(p, batch, reply, rtt)
	return nil
}

// confirmed takes in what p, a holder, answered to the batch: one result for
// each of it.
func (n *Node) confirmed(p peer.ID, batch []parcel, reply *pb.AdvertiseReply, rtt time.Duration) {
	n.coords.Observe(p, vivaldi.FromWire(reply.Coordinate), rtt)
	accepted := false
	now := time.Now()
	for i, r := range reply.Results {
		n.heardHad(r.Had)
		if r.Refused != "" {
			n.log.Debug("record refused by holder", "peer", p, "topic", batch[i].Topic, "reason", r.Refused)
			if len(batch[i].Amendment) > 0 {
				n.outbox.refused(p, Topic(batch[i].Topic))
			}
			continue
		}
		n.sharding.Report(now, Topic(batch[i].Topic), p, int(r.Held), r.Split)
		if batch[i].base > 0 { // else the next record is to be confirmed again
			accepted = true
			n.outbox.confirm(confirmedAt{p, Topic(batch[i].Topic)}, confirmation{at: now, base: batch[i].base})
		}
	}
	if accepted {
		n.host.ConnManager().TagPeer(p, holderTag, peerWeight)
		n.accept1.Do(func() { close(n.accepted) })
	}
	n.meet(p, reply.Closer)
}

// heardSelf tells the sharding what this node, a holder, holds of topic.
func (n *Node) heardSelf(now time.Time, topic Topic) {
	held, split := n.table.Count(now, topic, n.sharding.Quorum())
	n.sharding.Report(now, topic, n.ID(), held, split)
}

// confirm notes that a holder has accepted something.
func (o *outbox) confirm(at confirmedAt, c confirmation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.confirmed == nil {
		o.confirmed = make(map[confirmedAt]confirmation)
	}
	o.confirmed[at] = c
	maps.DeleteFunc(o.confirmed, func(_ confirmedAt, old confirmation) bool { return c.at.Sub(old.at) > holder.WholeEvery })
}

// doubt has everything confirmed that is sent from now on, if p is a holder of
// ours, and reports whether it is.
func (o *outbox) doubt(p peer.ID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	holder := false
	for _, c := range o.own {
		holder = holder || c.sent[p]
	}
	if holder {
		for at, c := range o.confirmed {
			c.anew = true
			o.confirmed[at] = c
		}
	}
	return holder
}

// meet checks holders that another one named: only those that answer count.
func (n *Node) meet(from peer.ID, named []*pb.Peer) {
	for _, w := range named[:min(len(named), maxCloser)] {
		ai, err := peerFromWire(w)
		if err != nil {
			n.log.Debug("holder named is no peer", "peer", from, "err", err)
			continue
		}
		now := time.Now()
		if ai.ID == n.ID() || n.reach.Down(now, ai.ID) || !n.dir.Meets(now, ai.ID) {
			continue
		}
		n.start(func() {
			ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
			defer cancel()
			if err := n.verifyMember(ctx, ai); err != nil {
				if n.ctx.Err() == nil {
					n.log.Debug("holder named is not there", "peer", ai.ID, "by", from, "err", err)
				}
				return
			}
			n.cache.Add(ai.ID)
		})
	}
}
