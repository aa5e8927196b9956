package records

import (
	"bufio"
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/frame"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/inspect"
	"weir/dht/overlay"
	"weir/dht/pb"
)

const (
	watchSilence = 3 * watchBeat   // a holder silent for so long is given up
	watchOpen    = 2 * time.Second // to open a watch
)

// Watch emits the records that p holds in topic, and their changes, as far as
// they verify, until ctx is done, emit returns false or p ends it, which is the
// error.
func (c *Client) Watch(ctx context.Context, p peer.ID, topic holder.Topic, emit func(inspect.Event) bool) error {
	opening, cancel := context.WithTimeout(ctx, watchOpen)
	defer cancel()
	s, err := c.Open(opening, p, c.Protocol)
	if err != nil {
		c.Peers.Failed(p, overlay.CallError(opening, err))
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
		e, ok, err := eventFromWire(c.Wall(time.Now()), topic, event)
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
func eventFromWire(now time.Time, topic holder.Topic, w *pb.Event) (e inspect.Event, ok bool, err error) {
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
