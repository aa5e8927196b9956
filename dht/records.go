package dht

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/frame"
	cpb "weir/capacity/pb"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

const (
	maxEntries = 64 // records in one ADVERTISE
	queryLimit = 16 // records in one answer to QUERY
	fetchLimit = 64 // records in one answer to FETCH
	maxExclude = 64 // peers excluded in one QUERY
	maxCloser  = 8  // holders named in one acknowledgement

	maxReason = 256 // bytes of a reason given

	// For the connection manager, should there be too many connections: a
	// publisher, or a holder of ours, is worth more than any other peer.
	publisherTag, holderTag = "weir-publisher", "weir-holder"
	peerWeight              = 50

	watchBeat = 5 * time.Second // an idle watch says so this often

)

var (
	errNotYours = errors.New("record of another node")
	errBusy     = fmt.Errorf("%w: too many requests at once", ErrBusy)
	errFlood    = fmt.Errorf("too many records: at most %d a second", holder.RecordRate)

	errNothingToUpdate = errors.New("no record held to amend: send it whole")
)

// ErrBusy means that a node has no place for one more request of its kind now.
// That says nothing of what it holds.
var ErrBusy = errors.New("busy")

// serveRecords answers one request of /records/1.
func (n *Node) serveRecords(s network.Stream) {
	var req pb.Request
	if !n.overlay.Server.Receive(s, maxRequest, &req) {
		return
	}
	if w := req.GetWatch(); w != nil {
		n.serveWatch(s, s.Conn().RemotePeer(), w)
		return
	}
	n.overlay.Server.Reply(s, errorReply(errBusy), func(from peer.ID) proto.Message { return n.answerRecords(from, &req) })
}

// answerRecords answers every request but WATCH.
func (n *Node) answerRecords(from peer.ID, req *pb.Request) (resp *pb.Response) {
	ctx, span := n.overlay.Server.Begin(from, req, req.Trace)
	defer func() { n.overlay.Server.End(ctx, span, from, resp) }()
	switch op := req.Op.(type) {
	case *pb.Request_Advertise:
		return n.serveAdvertise(from, op.Advertise)
	case *pb.Request_Query:
		return n.serveQuery(from, op.Query)
	case *pb.Request_Fetch:
		return n.serveFetch(op.Fetch)
	case *pb.Request_HandOver:
		return n.serveHandOver(from, op.HandOver)
	case *pb.Request_Claim:
		return n.serveClaim(from, op.Claim)
	default:
		return errorReply(errors.New("unknown request"))
	}
}

func errorReply(err error) *pb.Response {
	return &pb.Response{Error: clip(err.Error(), maxReason), Busy: errors.Is(err, ErrBusy)}
}

// holderError is why a holder did not serve a request, or nil. It is an [ErrBusy]
// if the holder had no place for it.
func holderError(resp *pb.Response) error {
	switch {
	case resp.Error == "":
		return nil
	case resp.Busy:
		return fmt.Errorf("%w: holder refused: %.200s", ErrBusy, resp.Error)
	}
	return fmt.Errorf("holder refused: %.200s", resp.Error)
}

// serveAdvertise takes in from's own records, each accepted or refused by
// itself.
func (n *Node) serveAdvertise(from peer.ID, req *pb.Advertise) *pb.Response {
	if len(req.Entries) > maxEntries {
		return errorReply(fmt.Errorf("%d records at once, at most %d", len(req.Entries), maxEntries))
	}
	reply := n.takeEntries(time.Now(), from, req.Entries)
	reply.Coordinate = vivaldi.ToWire(n.overlay.Coords.Here())
	return &pb.Response{Op: &pb.Response_Advertise{Advertise: reply}}
}

func (n *Node) takeEntries(now time.Time, from peer.ID, entries []*pb.Entry) *pb.AdvertiseReply {
	reply := &pb.AdvertiseReply{}
	var closer []peer.ID
	for _, e := range entries {
		result := &pb.Result{}
		had := uint64(0)
		if h := n.table.Get(now, Topic(e.Topic), from); h != nil {
			had = h.Record.Seq
		}
		err := errFlood
		if n.rates.Allow(now, from) {
			err = n.hold(now, from, e)
		}
		if err != nil {
			result.Refused = clip(err.Error(), maxReason)
			n.log.Debug("record refused", "peer", from, "topic", e.Topic, "err", err)
		} else if len(e.Sealed)+len(e.Update) > 0 {
			closer = append(closer, n.dir.Closer(now, Topic(e.Topic), from, e.Known)...)
			n.overlay.Host.ConnManager().TagPeer(from, publisherTag, peerWeight)
		}
		if err != nil || len(e.Sealed) > 0 {
			result.Had = had
		}
		if topic := Topic(e.Topic); topic.Check() == nil && topic.Stream() == "" {
			held, split := n.table.Count(now, topic, n.sharding.Quorum())
			result.Held, result.Split = uint32(held), split
		}
		reply.Results = append(reply.Results, result)
	}
	slices.Sort(closer)
	closer = slices.Compact(closer)
	for _, p := range closer[:min(len(closer), maxCloser)] {
		reply.Closer = append(reply.Closer, pb.PeerOf(n.overlay.Host.Peerstore().PeerInfo(p)))
	}
	return reply
}

// hold puts the record in e into the table, or takes it out. Only the node
// that a record names may do so, and only in a topic where it belongs.
func (n *Node) hold(now time.Time, from peer.ID, e *pb.Entry) error {
	topic := Topic(e.Topic)
	if err := topic.Check(); err != nil {
		return err
	}
	if !n.dir.Holds() {
		return directory.ErrNotHolder
	}
	if e.Deeper {
		if _, bits, ok := topic.Shard(); !ok || !strings.HasPrefix(holder.IDBits(from), bits) {
			return holder.ErrWrongTopic
		}
		n.table.Post(now, now.Add(directory.NoticeTTL), topic, from)
		if len(e.Sealed)+len(e.Update) == 0 && e.Seq == 0 {
			return nil
		}
	}
	if len(e.Sealed)+len(e.Update) == 0 {
		err := n.table.Withdraw(now, topic, from, e.Seq)
		_, _, shard := topic.Shard()
		if shard && n.dir.Whole(now) && n.table.Get(now, CapacityTopic(), from) == nil {
			n.peers.Live.Leave(now, from) // everything is held here, and of it there is nothing
		}
		return err
	}
	var r capacity.Record
	sealed, err := e.Sealed, error(nil)
	if len(e.Update) > 0 {
		h := n.table.Get(now, topic, from)
		if h == nil {
			return errNothingToUpdate
		}
		if r, sealed, err = signed.ApplyUpdate(h.Record, h.Sealed, e.Update); err == nil {
			err = r.CheckAge(n.wall(now))
		}
	} else {
		r, err = signed.OpenRecord(sealed, n.wall(now))
	}
	if err != nil {
		return err
	}
	if r.Node != from {
		return errNotYours
	}
	if err := topic.Fits(&r); err != nil {
		return err
	}
	return n.table.Put(now, now, topic, r, sealed)
}

// serveQuery answers with a random sample, weighted by score, of the records
// that pass the policy: never the plain best, on which all who ask at once
// would pile up. A seeker that holds the same policy gets digests, for it will
// have the record from the node it takes.
func (n *Node) serveQuery(from peer.ID, q *pb.Query) *pb.Response {
	topic := Topic(q.Topic)
	if err := topic.CheckAsked(); err != nil {
		return errorReply(err)
	}
	need, err := needFromWire(q.Need)
	if err != nil {
		return errorReply(err)
	}
	if len(q.Exclude) > maxExclude {
		return errorReply(fmt.Errorf("%d peers excluded, at most %d", len(q.Exclude), maxExclude))
	}
	doubts, err := doubtsFromWire(q.Doubts, holder.MaxDoubts)
	if err != nil {
		return errorReply(err)
	}
	exclude := make([]peer.ID, 0, len(q.Exclude))
	for _, b := range q.Exclude {
		exclude = append(exclude, peer.ID(b))
	}
	limit := queryLimit
	if q.Limit > 0 {
		limit = min(limit, int(q.Limit))
	}
	me := capacity.Record{Node: from, Region: need.Region}
	if h := n.table.Get(time.Now(), CapacityTopic(), from); h != nil {
		me = h.Record
	}
	if origin := vivaldi.FromWire(q.Origin); origin != nil {
		me.Coordinate = origin
	}
	if topic == holder.RegionsTopic {
		return &pb.Response{Op: &pb.Response_Query{Query: n.answerRegions(me, limit)}}
	}
	if !topic.Provisions() {
		n.doubts.Heard(time.Now(), from, doubts)
	}
	reply := &pb.QueryReply{}
	var held int
	var rejected map[string]int
	if q.Sealed || q.Explain || topic.Provisions() || q.Policy != n.cfg.Policy().Policy().Version {
		var picked []policy.Candidate
		picked, held, rejected = n.sampleHeld(topic, need, me, exclude, limit, q.Explain)
		for _, c := range picked {
			reply.Sealed = append(reply.Sealed, c.Sealed)
			reply.Doubts = append(reply.Doubts, doubtsIn(&c)...)
		}
	} else {
		var offers []offer
		offers, held, rejected = n.offers(topic, need, me, exclude, limit)
		now := time.Now()
		for _, o := range offers {
			reply.Digests = append(reply.Digests, digestToWire(now, &o))
			reply.Doubts = append(reply.Doubts, doubtsIn(&o.Candidate)...)
		}
	}
	reply.Held = uint32(held)
	_, reply.Split = n.table.Count(time.Now(), topic, n.sharding.Quorum())
	for rule, count := range rejected {
		reply.Rejected = append(reply.Rejected, &pb.Rejected{Rule: rule, Count: uint32(count)})
	}
	return &pb.Response{Op: &pb.Response_Query{Query: reply}}
}

// sampleHeld draws up to limit of the records held in topic that pass the
// policy for me, and counts those held and those each rule rejected. Explain
// fills up with rejected ones.
func (n *Node) sampleHeld(topic Topic, need capacity.Need, me capacity.Record, exclude []peer.ID, limit int, explain bool) (picked []policy.Candidate, held int, rejected map[string]int) {
	if topic.Provisions() {
		picked, held = n.sampleProvisioners(topic, exclude, limit)
		return picked, held, nil
	}
	now := time.Now()
	records := n.table.List(now, topic)
	candidates := make([]policy.Candidate, 0, len(records))
	for _, h := range records {
		if slices.Contains(exclude, h.Node()) {
			continue
		}
		candidates = append(candidates, policy.Candidate{
			Record: h.Record,
			Sealed: h.Sealed,
			RTT:    holder.PredictRTT(me.Coordinate, h.Record.Coordinate),
			Trust:  n.doubts.Of(now, h.Node()),
		})
	}
	ranking := n.cfg.Policy().Rank(need, me, candidates)
	verdicts := ranking.Passed
	if len(verdicts) > limit {
		verdicts = ranking.Draw(limit, len(verdicts), newRand())
	}
	if explain {
		verdicts = slices.Concat(verdicts, ranking.Rejected)
	}
	for _, v := range verdicts[:min(len(verdicts), limit)] {
		picked = append(picked, v.Candidate)
	}
	return picked, len(records), ranking.RejectedBy()
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())) }

// serveWatch sends what is held in a topic, a marker and every change, until
// the watcher goes, or is too slow to take what there is.
func (n *Node) serveWatch(s network.Stream, from peer.ID, req *pb.Watch) {
	refuse := func(err error) {
		_ = s.SetWriteDeadline(time.Now().Add(overlay.ServeTimeout))
		if _, err := frame.Write(s, errorReply(err)); err != nil {
			_ = s.Reset()
			return
		}
		_ = s.Close()
	}
	topic := Topic(req.Topic)
	if err := topic.CheckAsked(); err != nil {
		refuse(err)
		return
	}
	if !n.overlay.Server.Inbound.Enter(from, true) {
		refuse(errBusy)
		return
	}
	defer n.overlay.Server.Inbound.Leave(from, true)
	snapshot, w, err := n.table.Watch(time.Now(), from, topic)
	if err != nil {
		refuse(fmt.Errorf("%w: %w", ErrBusy, err))
		return
	}
	defer n.table.Unwatch(w)
	defer func() { _ = s.Reset() }()

	// The watcher has nothing more to say: whatever comes ends the watch.
	// This goroutine ends with the Reset above.
	_ = s.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	if !n.overlay.Go(func() {
		defer close(gone)
		_, _ = s.Read(make([]byte, 1))
	}) {
		return
	}

	send := func(e *pb.Event) error {
		_ = s.SetWriteDeadline(time.Now().Add(overlay.ServeTimeout))
		_, err := frame.Write(s, &pb.Response{Op: &pb.Response_Event{Event: e}})
		return err
	}
	for _, h := range snapshot {
		if send(eventOf(holder.Event{Held: h})) != nil {
			return
		}
	}
	_, split := n.table.Count(time.Now(), topic, n.sharding.Quorum())
	if send(&pb.Event{Synced: true, Split: split}) != nil {
		return
	}
	beat := time.NewTicker(watchBeat)
	defer beat.Stop()
	for {
		select {
		case e, ok := <-w.Events:
			if !ok {
				n.log.Debug("watcher cut off", "peer", from, "topic", topic, "err", w.Err)
				if errors.Is(w.Err, holder.ErrWatchers) {
					refuse(fmt.Errorf("%w: %w", ErrBusy, w.Err))
				}
				return
			}
			if send(eventOf(e)) != nil {
				return
			}
		case <-beat.C:
			if send(&pb.Event{}) != nil {
				return
			}
		case <-gone:
			return
		case <-n.overlay.Context().Done():
			return
		}
	}
}

func eventOf(e holder.Event) *pb.Event {
	if e.Gone {
		return &pb.Event{Gone: []byte(e.Held.Node())}
	}
	return &pb.Event{
		Sealed: e.Held.Sealed,
		HeldMs: uint32(min(time.Since(e.Held.Received), capacity.MaxTTL).Milliseconds()),
	}
}

func needFromWire(w *cpb.Need) (capacity.Need, error) {
	if w == nil {
		return capacity.Need{}, errors.New("no need given")
	}
	need := signed.NeedFromWire(w)
	return need, need.Check()
}
