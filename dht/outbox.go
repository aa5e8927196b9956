package dht

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/pb"
)

// An outbox holds what this node publishes and what of it each holder still
// has to get. At most one ADVERTISE is under way per holder; what comes up
// meanwhile waits, newer records in the place of older ones, so a holder that
// hangs delays nobody and costs no memory.
type outbox struct {
	mu      sync.Mutex
	seq     uint64             // the last one given out
	own     map[Topic]*ownCopy // what is published now
	pending map[peer.ID]map[Topic]*pb.Entry
	busy    map[peer.ID]bool
	audience
}

type ownCopy struct {
	sealed []byte
	record capacity.Record
	sent   map[peer.ID]bool // holders it was put in the box for
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
	return o.seq
}

// sealed returns up to max of the node's own records, the capacity one first.
func (o *outbox) sealed(max int) [][]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list [][]byte
	if c := o.own[CapacityTopic()]; c != nil && max > 0 {
		list = append(list, c.sealed)
	}
	for topic, c := range o.own {
		if len(list) >= max {
			break
		}
		if topic != CapacityTopic() {
			list = append(list, c.sealed)
		}
	}
	return list
}

// published returns the node's own record in topic as published last.
func (o *outbox) published(topic Topic) (capacity.Record, []byte, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.own[topic]; c != nil {
		return c.record, c.sealed, true
	}
	return capacity.Record{}, nil, false
}

// me returns the node's own capacity record as published last.
func (o *outbox) me() (capacity.Record, bool) {
	r, _, ok := o.published(CapacityTopic())
	return r, ok
}

func (n *Node) sample() (capacity.Record, []capacity.Carriage) {
	n.spread()
	return n.cfg.Sample()
}

// publish seals the claims and puts them in the box for their holders, this
// node included. It does not wait for anyone.
func (n *Node) publish(claims []claim) {
	now := time.Now()
	addrs := n.host.Addrs()
	for _, c := range claims {
		r := c.record
		r.Node = n.ID()
		r.Seq = n.outbox.nextSeq(now)
		r.Issued = time.UnixMilli(now.UnixMilli())
		r.TTL = capacity.DefaultTTL
		r.Addrs = addrs[:min(len(addrs), capacity.MaxAddrs)]
		r.Coordinate = n.coords.here()
		sealed, err := capacity.Seal(r, n.cfg.Key)
		if err != nil {
			n.log.Warn("record not published", "topic", c.topic, "err", err)
			continue
		}
		h, _ := n.holders(c.topic)
		if h.self {
			if err := n.table.put(now, c.topic, r, sealed); err != nil {
				n.log.Debug("own record not held", "topic", c.topic, "err", err)
			}
		}
		n.outbox.mu.Lock()
		if n.outbox.own == nil {
			n.outbox.own = make(map[Topic]*ownCopy)
		}
		n.outbox.own[c.topic] = &ownCopy{sealed: sealed, record: r, sent: make(map[peer.ID]bool)}
		n.outbox.mu.Unlock()
		n.send(c.topic, h)
	}
}

// withdraw takes the topics back from everyone who may hold them.
func (n *Node) withdraw(topics []Topic) { n.withdrawFrom(topics, func(peer.ID) bool { return true }) }

func (n *Node) withdrawFrom(topics []Topic, wanted func(peer.ID) bool) {
	now := time.Now()
	for _, topic := range topics {
		seq := n.outbox.nextSeq(now)
		h, _ := n.holders(topic)
		to := h.remote
		n.outbox.mu.Lock()
		if c := n.outbox.own[topic]; c != nil {
			to = slices.AppendSeq(slices.Clone(to), maps.Keys(c.sent))
		}
		delete(n.outbox.own, topic)
		n.outbox.mu.Unlock()
		_ = n.table.withdraw(now, topic, n.ID(), seq) // only we are newer than ourselves
		slices.Sort(to)
		for _, p := range slices.Compact(to) {
			if wanted(p) {
				n.enqueue(p, topic, &pb.Entry{Topic: string(topic), Seq: seq})
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
	now := audience{n.reach.changes(), n.cache.changes(), n.kad.RoutingTable().ListPeers()}
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
		h, _ := n.holders(topic)
		n.send(topic, h)
	}
}

// send puts the record published in topic in the box for those of its holders
// that it was not put in for yet.
func (n *Node) send(topic Topic, h holders) {
	e := &pb.Entry{Topic: string(topic)}
	if !h.all {
		e.Known = knownList(h.remote)
		if h.self {
			e.Known = append(e.Known, kb.ConvertPeerID(n.ID())[:4]...)
		}
	}
	var fresh []peer.ID
	n.outbox.mu.Lock()
	if c := n.outbox.own[topic]; c != nil {
		e.Sealed = c.sealed
		for _, p := range h.remote {
			if !c.sent[p] {
				c.sent[p] = true
				fresh = append(fresh, p)
			}
		}
	}
	n.outbox.mu.Unlock()
	for _, p := range fresh {
		n.enqueue(p, topic, e)
	}
}

// enqueue puts e in the box for p, and sees to it that the box is emptied.
func (n *Node) enqueue(p peer.ID, topic Topic, e *pb.Entry) {
	o := &n.outbox
	o.mu.Lock()
	if o.pending == nil {
		o.pending = make(map[peer.ID]map[Topic]*pb.Entry)
		o.busy = make(map[peer.ID]bool)
	}
	if o.pending[p] == nil {
		o.pending[p] = make(map[Topic]*pb.Entry)
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
func (o *outbox) take(p peer.ID) []*pb.Entry {
	o.mu.Lock()
	defer o.mu.Unlock()
	var batch []*pb.Entry
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
// again at the next sample, unless p counts as down by then.
func (o *outbox) missed(p peer.ID, batch []*pb.Entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, e := range slices.AppendSeq(batch, maps.Values(o.pending[p])) {
		if c := o.own[Topic(e.Topic)]; c != nil {
			delete(c.sent, p)
		}
	}
	delete(o.pending, p)
	delete(o.busy, p)
	o.audience = audience{}
}

// advertiseTo sends one batch and takes in what the holder answers.
func (n *Node) advertiseTo(p peer.ID, batch []*pb.Entry) error {
	ctx, cancel := context.WithTimeout(n.ctx, max(time.Second, 4*n.reach.rtt(p)))
	defer cancel()
	req := &pb.Request{Op: &pb.Request_Advertise{Advertise: &pb.Advertise{Entries: batch}}}
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
	n.coords.observe(p, coordinateFromWire(reply.Coordinate), rtt)
	accepted := false
	for i, r := range reply.Results {
		if r.Refused == "" {
			accepted = accepted || len(batch[i].Sealed) > 0
		} else {
			n.log.Debug("record refused by holder", "peer", p, "topic", batch[i].Topic, "reason", r.Refused)
		}
	}
	if accepted {
		n.host.ConnManager().TagPeer(p, holderTag, peerWeight)
		n.accept1.Do(func() { close(n.accepted) })
	}
	n.meet(p, reply.Closer)
	return nil
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
		if ai.ID == n.ID() || n.reach.down(now, ai.ID) || !n.cache.meeting(now, ai.ID) {
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
			n.cache.hint(ai.ID)
		})
	}
}
