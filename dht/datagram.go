package dht

import (
	"bytes"
	"encoding/hex"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"weir/capacity/frame"
	"weir/dht/holding"
	"weir/dht/pb"
)

const maxDatagram = 1_400 // bytes

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
	for _, c := range n.overlay.Host.Network().ConnsToPeer(p) {
		var q *quic.Conn
		if c.As(&q) && q.ConnectionState().SupportsDatagrams.Remote {
			return q
		}
	}
	return nil
}

// datagram sends m to p over QUIC, and reports false where it cannot.
func (n *Node) datagram(p peer.ID, m *pb.Datagram) bool {
	q := n.quicTo(p)
	return q != nil && n.sendDatagram(p, q, m) == nil // too large for the path, perhaps
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
	n.overlay.Traffic.LogSentMessageStream(int64(len(b)), n.datagramProtocol(), p)
	return nil
}

// receiveDatagrams takes in what comes by datagram over c, if it is a QUIC
// connection, until it or the node is closed.
func (n *Node) receiveDatagrams(c network.Conn) {
	var q *quic.Conn
	if n.cfg.Client || !c.As(&q) {
		return
	}
	from := c.RemotePeer()
	n.overlay.Go(func() {
		for {
			b, err := q.ReceiveDatagram(n.overlay.Context())
			if err != nil {
				return
			}
			n.overlay.Traffic.LogRecvMessageStream(int64(len(b)), n.datagramProtocol(), from)
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
// table, its answer to the publisher. It returns what there is to answer, or
// nil.
func (n *Node) takeDatagram(now time.Time, from peer.ID, b []byte) (*pb.Datagram, error) {
	b, ok := bytes.CutPrefix(b, datagramPrefix(n.network))
	if !ok || len(b) > maxDatagram {
		return nil, errNoDatagram
	}
	if !n.rates.Allow(now, from) {
		return nil, holding.ErrFlood
	}
	var m pb.Datagram
	if err := frame.DecodePrintable(b, &m); err != nil {
		return nil, err
	}
	n.peers.Answered(from, 0)
	if m.Answer != nil {
		n.publisher.Answered(from, m.Answers, m.Answer)
	}
	for _, topic := range m.Lacking[:min(len(m.Lacking), holding.MaxDatagramTopics)] {
		n.publisher.Lacks(from, Topic(topic))
	}
	return n.holding.Datagram(now, from, &m)
}
