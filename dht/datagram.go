package dht

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"weir/capacity/frame"
	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	// indexConfirmEvery is [holder.ConfirmEvery] in the index of regions, where
	// all takes its time.
	indexConfirmEvery = 3 * indexKeepalive

	// An answer that has not come in datagramPatience, or three round trips if
	// they take longer, is asked for on a stream.
	datagramPatience = 250 * time.Millisecond

	maxDatagram    = 1_400 // bytes
	maxAnswer      = 1_100 // bytes that fit in a datagram on every path of QUIC's (RFC 9000 §14)
	datagramTopics = 4     // records in one
)

// datagramProtocol is the name under which datagrams are counted. On the wire
// each is a [pb.Datagram] behind the network's ID, 8 bytes.
func (n *Node) datagramProtocol() protocol.ID { return n.records + "/datagram" }

func datagramPrefix(networkID string) []byte {
	b, _ := hex.DecodeString(networkID) // it is made of hex digits
	return b
}

// quicTo returns a QUIC connection with p on which datagrams go both ways
// (RFC 9221), or nil.
func (n *Node) quicTo(p peer.ID) *quic.Conn {
	for _, c := range n.host.Network().ConnsToPeer(p) {
		var q *quic.Conn
		if c.As(&q) && q.ConnectionState().SupportsDatagrams.Remote {
			return q
		}
	}
	return nil
}

// sendDatagram sends m over q, the connection with p.
func (n *Node) sendDatagram(p peer.ID, q *quic.Conn, m *pb.Datagram) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(datagramPrefix(n.network), m)
	if err != nil {
		return err
	}
	if len(b) > maxDatagram {
		return errLongDatagram
	}
	if err := q.SendDatagram(b); err != nil {
		return err
	}
	n.traffic.LogSentMessageStream(int64(len(b)), n.datagramProtocol(), p)
	return nil
}

// amendByDatagram sends the batch to p by datagram and reports whether it did,
// and p has it for all that is known: what p has to confirm, it has confirmed.
// It does so for amendments only.
func (n *Node) amendByDatagram(p peer.ID, batch []parcel) bool {
	if len(batch) > datagramTopics || slices.ContainsFunc(batch, func(e parcel) bool { return len(e.Amendment) == 0 || e.Deeper }) {
		return false
	}
	q := n.quicTo(p)
	if q == nil {
		return false
	}
	confirm := !n.outbox.mayLose(time.Now(), p, batch)
	m := &pb.Datagram{}
	for _, e := range batch {
		sent := &pb.Entry{Topic: e.Topic, Amendment: e.Amendment}
		if confirm {
			sent.Known = e.Known
		}
		m.Entries = append(m.Entries, sent)
	}
	if !confirm {
		return n.sendDatagram(p, q, m) == nil
	}
	answer := n.letters.open(p, m)
	defer n.letters.close(p)
	began := time.Now()
	if n.sendDatagram(p, q, m) != nil {
		return false // too large for the path, perhaps
	}
	late := time.NewTimer(max(datagramPatience, 3*n.reach.RTT(p)))
	defer late.Stop()
	select {
	case reply := <-answer:
		if len(reply.Results) != len(batch) {
			return false
		}
		rtt := time.Since(began)
		n.answered(p, rtt)
		n.confirmed(p, batch, reply, rtt)
		return true
	case <-late.C:
	case <-n.ctx.Done():
	}
	return false
}

// letters are the datagrams that wait for an answer, at most one per peer.
type letters struct {
	mu   sync.Mutex
	last uint32
	sent map[peer.ID]letter
}

type letter struct {
	id     uint32
	answer chan *pb.AdvertiseReply // of one
}

// open gives m, which goes to p, an ID and returns where the answer will come.
func (l *letters) open(p peer.ID, m *pb.Datagram) <-chan *pb.AdvertiseReply {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.last++; l.last == 0 {
		l.last++
	}
	if l.sent == nil {
		l.sent = make(map[peer.ID]letter)
	}
	m.Id = l.last
	l.sent[p] = letter{l.last, make(chan *pb.AdvertiseReply, 1)}
	return l.sent[p].answer
}

func (l *letters) close(p peer.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.sent, p)
}

// answered takes in p's answer to the letter with that ID. What nobody waits
// for is dropped.
func (l *letters) answered(p peer.ID, id uint32, reply *pb.AdvertiseReply) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if open, waits := l.sent[p]; waits && open.id == id {
		open.answer <- reply
		delete(l.sent, p)
	}
}

// mayLose reports whether nothing in the batch, which are amendments, is urgent,
// and p has confirmed something lately in each of their topics.
func (o *outbox) mayLose(now time.Time, p peer.ID, batch []parcel) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.ContainsFunc(batch, func(e parcel) bool {
		own, c, every := o.own[Topic(e.Topic)], o.confirmed[confirmedAt{p, Topic(e.Topic)}], holder.ConfirmEvery
		if Topic(e.Topic) == holder.RegionsTopic {
			every = indexConfirmEvery
		}
		return own == nil || own.urgent || c.anew || now.Sub(c.at) >= every
	})
}

// receiveDatagrams takes in what comes by datagram over c, if it is a QUIC
// connection, until it or the node is closed.
func (n *Node) receiveDatagrams(c network.Conn) {
	var q *quic.Conn
	if n.cfg.Client || !c.As(&q) {
		return
	}
	from := c.RemotePeer()
	n.start(func() {
		for {
			b, err := q.ReceiveDatagram(n.ctx)
			if err != nil {
				return
			}
			n.traffic.LogRecvMessageStream(int64(len(b)), n.datagramProtocol(), from)
			answer, err := n.takeDatagram(time.Now(), from, b)
			if err != nil {
				n.log.Debug("datagram not taken", "peer", from, "err", err)
			}
			if answer != nil {
				if err := n.sendDatagram(from, q, answer); err != nil {
					n.log.Debug("datagram not answered", "peer", from, "err", err)
				}
			}
		}
	})
}

var (
	errNoDatagram   = errors.New("no datagram of this network")
	errLongDatagram = errors.New("datagram too long")
)

// takeDatagram takes in b, which came from a peer: its records go into the
// table, its answer to who waits for it. It returns what there is to answer, or
// nil.
func (n *Node) takeDatagram(now time.Time, from peer.ID, b []byte) (*pb.Datagram, error) {
	b, ok := bytes.CutPrefix(b, datagramPrefix(n.network))
	if !ok || len(b) > maxDatagram {
		return nil, errNoDatagram
	}
	if !n.rates.Allow(now, from) {
		return nil, errFlood
	}
	var m pb.Datagram
	if err := frame.DecodePrintable(b, &m); err != nil {
		return nil, err
	}
	n.answered(from, 0)
	if m.Answer != nil {
		n.letters.answered(from, m.Answers, m.Answer)
	}
	for _, topic := range m.Lacking[:min(len(m.Lacking), datagramTopics)] {
		n.outbox.refused(from, Topic(topic))
	}
	var entries []*pb.Entry
	for _, e := range m.Entries[:min(len(m.Entries), datagramTopics)] {
		if len(e.Sealed)+len(e.Amendment) > 0 { // a withdrawal must not get lost, so it does not come this way
			entries = append(entries, &pb.Entry{Topic: e.Topic, Sealed: e.Sealed, Amendment: e.Amendment, Known: e.Known})
		}
	}
	if m.Id != 0 {
		reply := n.takeEntries(now, from, entries)
		for len(reply.Closer) > 0 && proto.Size(reply) > maxAnswer {
			reply.Closer = reply.Closer[:len(reply.Closer)-1]
		}
		return &pb.Datagram{Answer: reply, Answers: m.Id}, nil
	}
	var answer *pb.Datagram
	var errs []error
	for _, e := range entries {
		err := errFlood
		if n.rates.Allow(now, from) {
			err = n.hold(now, from, e)
		}
		if errors.Is(err, errNothingToAmend) {
			if answer == nil {
				answer = &pb.Datagram{}
			}
			answer.Lacking = append(answer.Lacking, e.Topic)
		}
		errs = append(errs, err)
	}
	return answer, errors.Join(errs...)
}
