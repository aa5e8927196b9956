package records

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/frame"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/overlay"
	"weir/dht/pb"
)

const watchBeat = 5 * time.Second // interval of the heartbeat of an idle watch

// A stream is what a watch needs of a [network.Stream].
type stream interface {
	io.ReadWriteCloser
	Reset() error
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// watch sends the records held in a topic, a marker and every change, until the
// watcher leaves or is too slow to read them.
func (s *Server) watch(to stream, from peer.ID, req *pb.Watch) {
	topic := holder.Topic(req.Topic)
	if err := topic.CheckAsked(); err != nil {
		refuse(to, err)
		return
	}
	if !s.cfg.Inbound.Inbound.Enter(from, true) {
		refuse(to, holding.ErrRequests)
		return
	}
	defer s.cfg.Inbound.Inbound.Leave(from, true)
	snapshot, w, err := s.cfg.Table.Watch(time.Now(), from, topic)
	if err != nil {
		refuse(to, fmt.Errorf("%w: %w", holding.ErrBusy, err))
		return
	}
	defer s.cfg.Table.Unwatch(w)
	defer func() { _ = to.Reset() }()

	// The watcher sends nothing more: any input ends the watch. This goroutine
	// ends with the Reset above.
	_ = to.SetReadDeadline(time.Time{})
	gone := make(chan struct{})
	if !s.cfg.Go(func() {
		defer close(gone)
		_, _ = to.Read(make([]byte, 1))
	}) {
		return
	}
	for _, h := range snapshot {
		if send(to, holding.EventToWire(time.Now(), holder.Event{Held: h})) != nil {
			return
		}
	}
	_, split := s.cfg.Table.Count(time.Now(), topic, 1) // see inspect.Event
	if send(to, &pb.Event{Synced: true, Split: split}) != nil {
		return
	}
	if err := s.follow(to, w, gone); err != nil {
		s.cfg.Log.Debug("watcher cut off", "peer", from, "topic", topic, "err", err)
		if errors.Is(err, holder.ErrWatchers) {
			refuse(to, fmt.Errorf("%w: %w", holding.ErrBusy, err))
		}
	}
}

// follow sends w's events, and a sign of life in between, until the watcher has
// gone or the node is closed. The error is why the table ended the watch.
func (s *Server) follow(to stream, w *holder.Watcher, gone <-chan struct{}) error {
	beat := time.NewTicker(watchBeat)
	defer beat.Stop()
	for {
		select {
		case e, ok := <-w.Events:
			if !ok {
				return w.Err
			}
			if send(to, holding.EventToWire(time.Now(), e)) != nil {
				return nil
			}
		case <-beat.C:
			if send(to, &pb.Event{}) != nil {
				return nil
			}
		case <-gone:
			return nil
		case <-s.cfg.Closed:
			return nil
		}
	}
}

func send(to stream, e *pb.Event) error {
	_ = to.SetWriteDeadline(time.Now().Add(overlay.ServeTimeout))
	_, err := frame.Write(to, &pb.Response{Op: &pb.Response_Event{Event: e}})
	return err
}

// refuse sends why a watch is not served, and closes the stream.
func refuse(to stream, err error) {
	_ = to.SetWriteDeadline(time.Now().Add(overlay.ServeTimeout))
	if _, err := frame.Write(to, errorReply(err)); err != nil {
		_ = to.Reset()
		return
	}
	_ = to.Close()
}
