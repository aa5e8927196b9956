package datagram

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/quic-go/quic-go"
	"google.golang.org/protobuf/proto"

	"weir/capacity/frame"
	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/pb"
)

// MaxSize bounds a datagram, in bytes.
const MaxSize = 1_400

// Reasons why datagrams are not accepted, or not sent.
var (
	ErrForeign = errors.New("no datagram of this network")
	ErrLong    = errors.New("datagram too long")
)

// Config is an [Exchange]'s view of its node; all of it is needed. Functions
// are called from several goroutines.
type Config struct {
	NetworkID string      // in hex digits
	Protocol  protocol.ID // the name under which datagrams are counted
	Traffic   Traffic
	// Conns are the connections with p.
	Conns func(p peer.ID) []network.Conn
	// Go runs f in a goroutine of the node, which ends ctx and waits for f when
	// it closes.
	Go    func(f func(ctx context.Context)) bool
	Rates *holder.RateLimit // of records per peer

	// Heard is called with the sender of each datagram accepted.
	Heard func(from peer.ID)
	// Answered takes in from's answer to the datagram with that id.
	Answered func(from peer.ID, id uint32, reply *pb.AdvertiseReply)
	// Lacks takes in that from holds no record in topic to update.
	Lacks func(from peer.ID, topic holder.Topic)
	// Hold takes in from's records, and returns the answer, or nil.
	Hold func(now time.Time, from peer.ID, m *pb.Datagram) (*pb.Datagram, error)

	Log *slog.Logger
}

// Traffic counts bytes sent and received; see libp2p's metrics.Reporter.
type Traffic interface {
	LogSentMessageStream(size int64, p protocol.ID, to peer.ID)
	LogRecvMessageStream(size int64, p protocol.ID, from peer.ID)
}

// An Exchange sends and receives datagrams. It is safe for concurrent use.
type Exchange struct {
	cfg    Config
	prefix []byte
}

// New returns an Exchange. It reads no connection before [Exchange.Receive].
func New(cfg Config) *Exchange { return &Exchange{cfg, Prefix(cfg.NetworkID)} }

// Prefix is the beginning of each datagram of a network, 8 bytes.
func Prefix(networkID string) []byte {
	b, _ := hex.DecodeString(networkID) // it consists of hex digits
	return b
}

// Send sends m to p over QUIC, and reports false if it cannot: p has no
// connection with datagrams both ways, or m is too large for it.
func (x *Exchange) Send(p peer.ID, m *pb.Datagram) bool {
	for _, c := range x.cfg.Conns(p) {
		var q *quic.Conn
		if c.As(&q) && q.ConnectionState().SupportsDatagrams.Remote {
			return x.send(p, q, m) == nil // too large for the path, perhaps
		}
	}
	return false
}

// send sends m over q, the connection with p.
func (x *Exchange) send(p peer.ID, q *quic.Conn, m *pb.Datagram) error {
	b, err := proto.MarshalOptions{}.MarshalAppend(bytes.Clone(x.prefix), m)
	if err != nil {
		return err
	}
	if len(b) > MaxSize {
		return ErrLong
	}
	if err := q.SendDatagram(b); err != nil {
		return err
	}
	x.cfg.Traffic.LogSentMessageStream(int64(len(b)), x.cfg.Protocol, p)
	return nil
}

// Receive reads datagrams from c, if it is a QUIC connection, until it or the
// node is closed. It does not block.
func (x *Exchange) Receive(c network.Conn) {
	var q *quic.Conn
	if !c.As(&q) {
		return
	}
	from := c.RemotePeer()
	x.cfg.Go(func(ctx context.Context) {
		for {
			b, err := q.ReceiveDatagram(ctx)
			if err != nil {
				return
			}
			x.cfg.Traffic.LogRecvMessageStream(int64(len(b)), x.cfg.Protocol, from)
			answer, err := x.Take(time.Now(), from, b)
			if err != nil {
				x.cfg.Log.Debug("datagram not taken", "peer", from, "err", err)
			}
			if answer != nil {
				if err := x.send(from, q, answer); err != nil {
					x.cfg.Log.Debug("datagram not answered", "peer", from, "err", err)
				}
			}
		}
	})
}

// Take takes in b, which came from a peer at now, this machine's time. It
// returns the answer, or nil. The error is [ErrForeign] if b is not of this
// network, [holding.ErrFlood] if the peer sends too many, or says why b is
// invalid; both may be set at once.
func (x *Exchange) Take(now time.Time, from peer.ID, b []byte) (*pb.Datagram, error) {
	b, ok := bytes.CutPrefix(b, x.prefix)
	if !ok || len(b) > MaxSize {
		return nil, ErrForeign
	}
	if !x.cfg.Rates.Allow(now, from) {
		return nil, holding.ErrFlood
	}
	var m pb.Datagram
	if err := frame.DecodePrintable(b, &m); err != nil {
		return nil, err
	}
	x.cfg.Heard(from)
	if m.Answer != nil {
		x.cfg.Answered(from, m.Answers, m.Answer)
	}
	for _, topic := range m.Lacking[:min(len(m.Lacking), holding.MaxDatagramTopics)] {
		x.cfg.Lacks(from, holder.Topic(topic))
	}
	return x.cfg.Hold(now, from, &m)
}
