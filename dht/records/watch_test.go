package records

import (
	"bufio"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"weir/capacity/capacitytest"
	"weir/capacity/frame"
	"weir/dht/holder"
	"weir/dht/pb"
)

// A pipe is a stream without a network.
type pipe struct{ net.Conn }

func (p pipe) Reset() error { return p.Close() }

// watched is a watch of s for topic, as its watcher sees it.
type watched struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
	done chan struct{} // closed once s has ended the watch
}

func watch(t *testing.T, s *Server, topic holder.Topic) *watched {
	t.Helper()
	here, there := net.Pipe()
	w := &watched{t, here, bufio.NewReader(here), make(chan struct{})}
	go func() {
		defer close(w.done)
		s.watch(pipe{there}, capacitytest.ID(t, "watcher"), &pb.Watch{Topic: string(topic)})
	}()
	return w
}

func (w *watched) next() *pb.Response {
	w.t.Helper()
	var resp pb.Response
	if _, err := frame.ReadPrintable(w.in, maxEvent, &resp); err != nil {
		w.t.Fatal(err)
	}
	return &resp
}

// A watcher gets what is held, a marker, each change, and a sign of life when
// nothing changes; the watch ends when it leaves.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		first, sealed := record(t, "first")
		s.Answer(t.Context(), first.Node, advertise(sealed))

		w := watch(t, s, home)
		if e := w.next().GetEvent(); string(e.GetSealed()) != string(sealed) {
			t.Errorf("began with %v", e)
		}
		if e := w.next().GetEvent(); !e.GetSynced() || e.GetSplit() {
			t.Errorf("the marker is %v", e)
		}
		synctest.Wait()
		second, sealed := record(t, "second")
		s.Answer(t.Context(), second.Node, advertise(sealed))
		if e := w.next().GetEvent(); string(e.GetSealed()) != string(sealed) {
			t.Errorf("a new record is told as %v", e)
		}
		start := time.Now()
		if e := w.next().GetEvent(); e == nil || len(e.Sealed)+len(e.Gone) > 0 || e.Synced || time.Since(start) != watchBeat {
			t.Errorf("after %v without a change: %v", time.Since(start), e)
		}
		_ = w.conn.Close()
		<-w.done
		synctest.Wait()
		if _, peers := s.cfg.Inbound.Inbound.Served(); peers != 0 {
			t.Errorf("%d watches are still counted", peers)
		}
	})
}

// What cannot be watched is refused by name, and a node that is closed ends its
// watches.
func TestWatchRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t)
		closed := make(chan struct{})
		s.cfg.Closed = closed
		w := watch(t, s, "nonsense")
		if resp := w.next(); resp.Error == "" || resp.Busy {
			t.Errorf("no topic: %v", resp)
		}
		<-w.done

		watcher := capacitytest.ID(t, "watcher")
		for s.cfg.Inbound.Inbound.Enter(watcher, true) {
		}
		w = watch(t, s, home)
		if resp := w.next(); !resp.Busy {
			t.Errorf("one too many: %v", resp)
		}
		<-w.done
		s.cfg.Inbound.Inbound.Leave(watcher, true)

		w = watch(t, s, home)
		if e := w.next().GetEvent(); !e.GetSynced() {
			t.Errorf("began with %v", e)
		}
		close(closed)
		<-w.done
	})
}
