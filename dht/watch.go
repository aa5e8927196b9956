package dht

import (
	"bufio"
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/capacity/signed"
	"weir/dht/holding"
	"weir/dht/inspect"
	"weir/dht/overlay"
	"weir/dht/pb"
)

const (
	watchSilence = 3 * watchBeat   // a holder silent for so long is given up
	watchOpen    = 2 * time.Second // to open a watch
)

// newReader wires what reads the tables of holders.
func (n *Node) newReader() *inspect.Reader {
	return &inspect.Reader{
		Self: n.ID(),
		Topics: func(ctx context.Context, topic Topic) []Topic {
			if topic == CapacityTopic() {
				return n.Seeker.Shards(ctx)
			}
			return []Topic{topic}
		},
		Holders: func(topic Topic) (self bool, remote []peer.ID) {
			h, _ := n.dir.Holders(time.Now(), topic)
			h = n.Seeker.WithTheSlow(topic, h)
			if each, own := n.dir.Each(); own {
				h.Remote = each
			}
			return h.Self, n.Seeker.NearestFirst(h.Remote)
		},
		Each:   n.cfg.Discovery.Own(),
		Table:  n.table,
		Remote: n.watchRemote,
		Ignore: func(p peer.ID) bool { return n.peers.Live.SilentFor(time.Now(), p, capacity.DefaultTTL) },
		Busy:   ErrBusy,
		Why:    silence,
		Closed: n.overlay.Context().Done(),
		Me:     func() capacity.Record { return n.Seeker.Me("") },
		RTT:    n.overlay.Coords.Predict,
		Trust:  n.beliefs.Of,
		Log:    n.log,
	}
}

// watchRemote emits the records that p holds in topic, and their changes, as
// far as they verify.
func (n *Node) watchRemote(ctx context.Context, p peer.ID, topic Topic, emit func(inspect.Event) bool) error {
	opening, cancel := context.WithTimeout(ctx, watchOpen)
	defer cancel()
	s, err := n.overlay.Host.NewStream(opening, p, n.records)
	if err != nil {
		n.peers.Failed(p, overlay.CallError(opening, err))
		return err
	}
	defer func() { _ = s.Reset() }()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()

	_ = s.SetDeadline(time.Now().Add(watchOpen))
	if _, err := frame.Write(s, &pb.Request{Op: &pb.Request_Watch{Watch: &pb.Watch{Topic: string(topic)}}}); err != nil {
		return err
	}
	r := bufio.NewReader(s)
	for {
		var resp pb.Response
		if _, err := frame.ReadPrintable(r, maxEvent, &resp); err != nil {
			return err
		}
		_ = s.SetDeadline(time.Now().Add(watchSilence))
		if err := holding.ReplyError(&resp); err != nil {
			return err
		}
		event := resp.GetEvent()
		if event == nil {
			return errors.New("holder answered something else")
		}
		e, ok, err := eventFromWire(n.wall(time.Now()), topic, event)
		if err != nil {
			return err
		}
		if ok && !emit(e) {
			return nil
		}
	}
}

// eventFromWire verifies w; ok is false if it is empty. A record that does not
// verify is emitted with its error, for the inspecting user.
func eventFromWire(now time.Time, topic Topic, w *pb.Event) (e inspect.Event, ok bool, err error) {
	switch {
	case w.Synced:
		e.Synced, e.Split = true, w.Split
		return e, true, nil
	case len(w.Gone) > 0:
		e.Gone = true
		e.Node, err = peer.IDFromBytes(w.Gone)
		return e, err == nil, err
	case len(w.Sealed) > 0:
		e.Sealed, e.HeldFor = w.Sealed, time.Duration(w.HeldMs)*time.Millisecond
		r, err := signed.OpenRecord(w.Sealed, now)
		if err == nil {
			err = topic.Fits(&r)
		}
		if err != nil {
			e.Err = err
			return e, true, nil
		}
		e.Record, e.Node = r, r.Node
		return e, true, nil
	}
	return e, false, nil
}
