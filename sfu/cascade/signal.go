package cascade

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/sfu/meter"
	"weir/sfu/pb"
)

func (l *Link) send(m *pb.Message) {
	select {
	case l.queue <- m:
	default:
		l.fail("the peer does not read what we send")
	}
}

func (l *Link) write() {
	for {
		select {
		case m := <-l.queue:
			_ = l.signal.SetWriteDeadline(time.Now().Add(linkDead))
			if writeMessage(l.signal, m) != nil {
				// The peer may have sent a reason before it closed: the reader
				// finds that, or the end of the stream.
				return
			}
		case <-l.done:
			return
		}
	}
}

func writeMessage(w io.Writer, m proto.Message) error {
	_, err := frame.Write(w, m)
	return err
}

func readMessage(r *bufio.Reader) (*pb.Message, error) {
	m := &pb.Message{}
	return m, readInto(r, maxMessage, m)
}

// readInto reads a message of at most most bytes.
func readInto(r *bufio.Reader, most int, m proto.Message) error {
	_, err := frame.Read(r, most, m)
	return err
}

func (l *Link) read() {
	r := bufio.NewReader(l.signal)
	for {
		_ = l.signal.SetReadDeadline(time.Now().Add(linkDead))
		m, err := readMessage(r)
		if err != nil {
			if errors.Is(err, io.EOF) {
				l.fail(whyClosed)
			} else {
				l.fail("signalling: " + err.Error())
			}
			return
		}
		if err := l.handle(m); err != nil {
			l.fail(err.Error())
			return
		}
	}
}

// handle processes one message. It must not block: it also answers heartbeats.
// An error ends the link.
func (l *Link) handle(m *pb.Message) error {
	switch m := m.Body.(type) {
	case *pb.Message_Ping:
		l.send(&pb.Message{Body: &pb.Message_Pong{Pong: m.Ping}})
	case *pb.Message_Pong:
		if rtt := time.Since(time.Unix(0, m.Pong.Time)); rtt >= 0 && rtt < linkDead {
			l.rtt.Store(int64(rtt))
			l.links.cfg.Measured(meter.RoundTrip, rtt)
		}
	case *pb.Message_Beats:
		return l.heard(m.Beats)
	case *pb.Message_Subscribe:
		l.serve(m.Subscribe)
	case *pb.Message_Subscribed:
		if in := l.upstream(m.Subscribed.Pull); in != nil {
			return in.accepted(m.Subscribed)
		}
	case *pb.Message_Refused:
		if m.Refused.Reason == reasonCrossed {
			l.fail(reasonCrossed)
		} else if in := l.upstream(m.Refused.Pull); in != nil {
			in.refused(&capacity.Refusal{Reason: plain(m.Refused.Reason), Detail: plain(m.Refused.Detail)})
		}
	case *pb.Message_Start:
		if b := l.downstream(m.Start.Pull); b != nil {
			b.begin()
		}
	case *pb.Message_Unsubscribe:
		if b := l.downstream(m.Unsubscribe.Pull); b != nil {
			b.close()
		}
	case *pb.Message_Ended:
		if in := l.upstream(m.Ended.Pull); in != nil {
			in.End(plain(m.Ended.Reason))
		}
	case *pb.Message_Leave:
		if in := l.upstream(m.Leave.Pull); in != nil {
			in.leaveOnce.Do(func() { close(in.leaving) })
		}
	case *pb.Message_Path:
		if in := l.upstream(m.Path.Pull); in != nil {
			path, err := l.parsePath(m.Path.Path)
			if err != nil {
				return err
			}
			in.move(path)
		}
	case *pb.Message_Offer:
		if l.dialer {
			return errors.New("an offer from who did not open the link")
		}
		return l.negotiator.described(m.Offer)
	case *pb.Message_Answer:
		if !l.dialer {
			return errors.New("an answer without an offer")
		}
		return l.negotiator.described(m.Answer)
	}
	return nil
}

// plain returns the printable part of a peer's text, bounded in length.
func plain(s string) string { return capacity.Printable(s, 200) }

// parsePath parses a path that ends at the peer.
func (l *Link) parsePath(raw [][]byte) ([]peer.ID, error) {
	if len(raw) == 0 || len(raw) > capacity.MaxDepth {
		return nil, fmt.Errorf("a path of %d nodes", len(raw))
	}
	path := make([]peer.ID, len(raw))
	for i, b := range raw {
		id, err := peer.IDFromBytes(b)
		if err != nil {
			return nil, fmt.Errorf("path: %w", err)
		}
		path[i] = id
	}
	if path[len(path)-1] != l.Peer {
		return nil, errors.New("a path that does not end at its sender")
	}
	return path, nil
}

func (l *Link) upstream(pull uint64) *upstream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.upstreams[pull]
}

func (l *Link) downstream(pull uint64) *downstream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.downstreams[pull]
}
