package dht

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity/frame"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/inspect"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/vivaldi"
)

const (
	maxReason = 256 // bytes of a reason given

	// Tags for the connection manager, should there be too many connections: a
	// publisher, or one of this node's holders, is worth more than any other
	// peer.
	publisherTag, holderTag = "weir-publisher", "weir-holder"
	peerWeight              = 50

	watchBeat = 5 * time.Second // interval of the heartbeat of an idle watch
)

var errBusy = fmt.Errorf("%w: too many requests at once", ErrBusy)

// ErrBusy means that a node has no place for one more request of its kind now.
// It says nothing about the records that the node holds.
var ErrBusy = holding.ErrBusy

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
	n.overlay.Server.Reply(s, errorReply(errBusy), func(from peer.ID) proto.Message { return overlay.Answer(n.overlay.Server, from, &req, n.answerRecords) })
}

// answerRecords answers every request but WATCH.
func (n *Node) answerRecords(_ context.Context, from peer.ID, req *pb.Request) *pb.Response {
	switch op := req.Op.(type) {
	case *pb.Request_Advertise:
		reply, err := n.holding.Advertise(time.Now(), from, op.Advertise)
		if err != nil {
			return errorReply(err)
		}
		reply.Coordinate = vivaldi.ToWire(n.overlay.Coords.Here())
		return &pb.Response{Op: &pb.Response_Advertise{Advertise: reply}}
	case *pb.Request_Query:
		reply, err := n.holding.Query(time.Now(), from, op.Query)
		if err != nil {
			return errorReply(err)
		}
		return &pb.Response{Op: &pb.Response_Query{Query: reply}}
	case *pb.Request_Fetch:
		return n.serveFetch(op.Fetch)
	case *pb.Request_HandOver:
		reply, err := n.holding.HandOver(time.Now(), from, op.HandOver)
		if err != nil {
			return errorReply(err)
		}
		return &pb.Response{Op: &pb.Response_HandOver{HandOver: reply}}
	case *pb.Request_Claim:
		return n.serveClaim(from, op.Claim)
	default:
		return errorReply(errors.New("unknown request"))
	}
}

func errorReply(err error) *pb.Response {
	return &pb.Response{Error: clip(err.Error(), maxReason), Busy: errors.Is(err, ErrBusy)}
}

// serveWatch sends the records held in a topic, a marker and every change,
// until the watcher leaves or is too slow to read them.
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

	// The watcher sends nothing more: any input ends the watch. This goroutine
	// ends with the Reset above.
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
		if send(holding.EventToWire(time.Now(), holder.Event{Held: h})) != nil {
			return
		}
	}
	_, split := n.table.Count(time.Now(), topic, 1) // see inspect.Event
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
			if send(holding.EventToWire(time.Now(), e)) != nil {
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

// serveFetch answers with this node's own records and its status.
func (n *Node) serveFetch(req *pb.Fetch) *pb.Response {
	now := time.Now()
	reply := &pb.FetchReply{
		Sealed:     n.fetched(req),
		Coordinate: vivaldi.ToWire(n.overlay.Coords.Here()),
		NowMs:      n.wall(now).UnixMilli(),
		Mode:       string(n.cfg.Discovery),
	}
	topics, records := n.table.Size(now)
	reply.HeldTopics, reply.HeldRecords = uint32(topics), uint32(records)
	if me, ok := n.publisher.Own(); ok {
		reply.Version, reply.Name = me.Release, me.Name
	}
	return &pb.Response{Op: &pb.Response_Fetch{Fetch: reply}}
}

// fetched returns the node's own records that req asks for.
func (n *Node) fetched(req *pb.Fetch) [][]byte {
	if req.Topic == "" {
		return n.publisher.Sealed(min(int(req.Max), inspect.MaxFetch))
	}
	if _, sealed, ok := n.publisher.Published(Topic(req.Topic)); ok && req.Max > 0 {
		return [][]byte{sealed}
	}
	return nil
}
