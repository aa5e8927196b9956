package holding

import (
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/dht/pb"
)

const (
	// MaxDatagramTopics bounds the records in one datagram.
	MaxDatagramTopics = 4
	// maxAnswer is the size in bytes of an answer that fits in a datagram on
	// every path that QUIC supports (RFC 9000, section 14).
	maxAnswer = 1_100
)

// Datagram takes in from's records of m, and returns the answer, or nil. A
// withdrawal must not get lost, so it is not accepted by datagram.
func (h *Holder) Datagram(now time.Time, from peer.ID, m *pb.Datagram) (*pb.Datagram, error) {
	var entries []*pb.Entry
	for _, e := range m.Entries[:min(len(m.Entries), MaxDatagramTopics)] {
		if len(e.Sealed)+len(e.Update) > 0 {
			entries = append(entries, &pb.Entry{Topic: e.Topic, Sealed: e.Sealed, Update: e.Update, Known: e.Known})
		}
	}
	if m.Id != 0 {
		reply := h.take(now, from, entries)
		for len(reply.Closer) > 0 && proto.Size(reply) > maxAnswer {
			reply.Closer = reply.Closer[:len(reply.Closer)-1]
		}
		return &pb.Datagram{Answer: reply, Answers: m.Id}, nil
	}
	var answer *pb.Datagram
	var errs []error
	for _, e := range entries {
		err := ErrFlood
		if h.cfg.Rates.Allow(now, from) {
			err = h.hold(now, from, e)
		}
		if errors.Is(err, ErrNothingToUpdate) {
			if answer == nil {
				answer = &pb.Datagram{}
			}
			answer.Lacking = append(answer.Lacking, e.Topic)
		}
		errs = append(errs, err)
	}
	return answer, errors.Join(errs...)
}
