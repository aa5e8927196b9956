package dht

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/quic-go/quic-go"
	"golang.org/x/time/rate"
	"google.golang.org/protobuf/proto"

	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	// ackEvery is how often a holder is sent something for which it answers.
	// What comes between goes by datagram, and if one is lost the next will
	// do: a record outlives three of them. In the index of regions all takes
	// its time.
	ackEvery      = 3 * keepalive
	indexAckEvery = 3 * indexKeepalive

	maxDatagram    = 1_400 // bytes
	datagramTopics = 4     // records in one
	// A peer may send so many datagrams a second, and so many at once.
	datagramRate, datagramBurst = 256, 512
)

// datagramProtocol is the name under which datagrams are counted. On the wire
// each begins with the network's ID, 8 bytes, and is an [pb.Advertise] without
// hints.
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

// sendLossy sends the batch to p by datagram and reports whether it did. It
// does so for amendments only, and not for those that p has to confirm.
func (n *Node) sendLossy(now time.Time, p peer.ID, batch []parcel) bool {
	if len(batch) > datagramTopics || !n.outbox.mayLose(now, p, batch) {
		return false
	}
	q := n.quicTo(p)
	if q == nil {
		return false
	}
	m := &pb.Advertise{}
	for _, e := range batch {
		m.Entries = append(m.Entries, &pb.Entry{Topic: e.Topic, Amendment: e.Amendment})
	}
	b, err := proto.MarshalOptions{}.MarshalAppend(datagramPrefix(n.network), m)
	if err != nil || len(b) > maxDatagram || q.SendDatagram(b) != nil {
		return false // too large for the path, perhaps: a stream takes it
	}
	n.traffic.LogSentMessageStream(int64(len(b)), n.datagramProtocol(), p)
	return true
}

// mayLose reports whether batch is nothing but amendments, none of them urgent
// and each in a topic in which p has confirmed something lately.
func (o *outbox) mayLose(now time.Time, p peer.ID, batch []parcel) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.ContainsFunc(batch, func(e parcel) bool {
		own, c, every := o.own[Topic(e.Topic)], o.confirmed[confirmedAt{p, Topic(e.Topic)}], ackEvery
		if Topic(e.Topic) == holder.RegionsTopic {
			every = indexAckEvery
		}
		return len(e.Amendment) == 0 || e.Deeper || own == nil || own.urgent || c.anew || now.Sub(c.at) >= every
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
		limit := rate.NewLimiter(datagramRate, datagramBurst)
		for {
			b, err := q.ReceiveDatagram(n.ctx)
			if err != nil {
				return
			}
			n.traffic.LogRecvMessageStream(int64(len(b)), n.datagramProtocol(), from)
			if !limit.Allow() {
				continue
			}
			if err := n.takeDatagram(time.Now(), from, b); err != nil {
				n.log.Debug("datagram not taken", "peer", from, "err", err)
			}
		}
	})
}

var errNoDatagram = errors.New("no datagram of this network")

// takeDatagram puts the records in b, which came from a peer, into the table.
func (n *Node) takeDatagram(now time.Time, from peer.ID, b []byte) error {
	b, ok := bytes.CutPrefix(b, datagramPrefix(n.network))
	if !ok || len(b) > maxDatagram {
		return errNoDatagram
	}
	var m pb.Advertise
	if err := proto.Unmarshal(b, &m); err != nil {
		return err
	}
	var errs []error
	for _, e := range m.Entries[:min(len(m.Entries), datagramTopics)] {
		if len(e.Sealed)+len(e.Amendment) == 0 {
			continue // a withdrawal must not get lost, so it does not come this way
		}
		errs = append(errs, n.hold(now, from, &pb.Entry{Topic: e.Topic, Sealed: e.Sealed, Amendment: e.Amendment}))
	}
	n.answered(from, 0)
	return errors.Join(errs...)
}
