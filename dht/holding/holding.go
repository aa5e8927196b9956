package holding

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	MaxEntries = 64 // records in one ADVERTISE
	QueryLimit = 16 // records in one answer to QUERY
	MaxStress  = 2  // mean of a topic's nodes in it; more is cut
	MaxExclude = 64 // peers excluded in one QUERY
	MaxCloser  = 8  // holders named in one acknowledgement

	maxReason = 256 // bytes of a reason given
)

// Reasons why records are refused.
var (
	ErrNotYours = errors.New("record of another node")
	ErrFlood    = fmt.Errorf("too many records: at most %d a second", holder.RecordRate)
	// ErrNothingToUpdate asks for the whole record.
	ErrNothingToUpdate = errors.New("no record held to amend: send it whole")
)

// Config is a Holder's view of its node. Functions are called from several
// goroutines.
type Config struct {
	ID        peer.ID
	NetworkID string
	Directory directory.Directory
	Sharding  *directory.Sharding
	Table     *holder.Table
	Reports   *holder.Reports
	Rates     *holder.RateLimit // of records per peer
	Policy    func() *policy.Compiled
	// Wall is the time by the clock to compare with other nodes' times.
	Wall func(now time.Time) time.Time

	// Introduce returns a node with its known addresses.
	Introduce func(id peer.ID) *pb.Peer
	// Accepted is called with each publisher of an accepted record, and Left
	// with a node that has withdrawn all its records.
	Accepted func(from peer.ID)
	Left     func(now time.Time, from peer.ID)

	Log *slog.Logger
}

// A Holder answers the requests to a holder of records. It is safe for
// concurrent use.
type Holder struct{ cfg Config }

// New returns a Holder.
func New(cfg Config) *Holder { return &Holder{cfg} }

// Advertise takes in from's own records, each accepted or refused by itself.
func (h *Holder) Advertise(now time.Time, from peer.ID, req *pb.Advertise) (*pb.AdvertiseReply, error) {
	if len(req.Entries) > MaxEntries {
		return nil, fmt.Errorf("%d records at once, at most %d", len(req.Entries), MaxEntries)
	}
	return h.take(now, from, req.Entries), nil
}

func (h *Holder) take(now time.Time, from peer.ID, entries []*pb.Entry) *pb.AdvertiseReply {
	reply := &pb.AdvertiseReply{}
	var closer []peer.ID
	for _, e := range entries {
		result := &pb.Result{}
		had := uint64(0)
		if old := h.cfg.Table.Get(now, holder.Topic(e.Topic), from); old != nil {
			had = old.Record.Seq
		}
		err := ErrFlood
		if h.cfg.Rates.Allow(now, from) {
			err = h.hold(now, from, e)
		}
		if err != nil {
			result.Refused = capacity.Printable(err.Error(), maxReason)
			h.cfg.Log.Debug("record refused", "peer", from, "topic", e.Topic, "err", err)
		} else if len(e.Sealed)+len(e.Update) > 0 {
			closer = append(closer, h.cfg.Directory.Closer(now, holder.Topic(e.Topic), from, e.Known)...)
			h.cfg.Accepted(from)
		}
		if err != nil || len(e.Sealed) > 0 {
			result.Had = had
		}
		if topic := holder.Topic(e.Topic); topic.Check() == nil && topic.Stream() == "" {
			held, split := h.cfg.Table.Count(now, topic, h.cfg.Sharding.Quorum())
			result.Held, result.Split = uint32(held), split
		}
		reply.Results = append(reply.Results, result)
	}
	slices.Sort(closer)
	closer = slices.Compact(closer)
	for _, p := range closer[:min(len(closer), MaxCloser)] {
		reply.Closer = append(reply.Closer, h.cfg.Introduce(p))
	}
	return reply
}

// hold puts the record in e into the table, or removes it. Only the node named
// in a record may do so, and only in a topic where it belongs.
func (h *Holder) hold(now time.Time, from peer.ID, e *pb.Entry) error {
	topic := holder.Topic(e.Topic)
	if err := topic.Check(); err != nil {
		return err
	}
	if !h.cfg.Directory.Holds() {
		return directory.ErrNotHolder
	}
	if e.Deeper {
		if _, bits, ok := topic.Shard(); !ok || !strings.HasPrefix(holder.IDBits(from), bits) {
			return holder.ErrWrongTopic
		}
		h.cfg.Table.NoteSplit(now, now.Add(directory.NoticeTTL), topic, from)
		if len(e.Sealed)+len(e.Update) == 0 && e.Seq == 0 {
			return nil
		}
	}
	if len(e.Sealed)+len(e.Update) == 0 {
		err := h.cfg.Table.Withdraw(now, topic, from, e.Seq)
		_, _, shard := topic.Shard()
		if shard && h.cfg.Directory.Complete(now) && h.cfg.Table.Get(now, holder.CapacityTopic(), from) == nil {
			h.cfg.Left(now, from) // every record is held here, and there is none of it
		}
		return err
	}
	var r capacity.Record
	sealed, err := e.Sealed, error(nil)
	if len(e.Update) > 0 {
		old := h.cfg.Table.Get(now, topic, from)
		if old == nil {
			return ErrNothingToUpdate
		}
		if r, sealed, err = signed.ApplyUpdate(old.Record, old.Sealed, e.Update); err == nil {
			err = r.CheckAge(h.cfg.Wall(now))
		}
	} else {
		r, err = signed.OpenRecord(sealed, h.cfg.Wall(now))
	}
	if err != nil {
		return err
	}
	if r.Node != from {
		return ErrNotYours
	}
	if err := topic.Fits(&r); err != nil {
		return err
	}
	return h.cfg.Table.Put(now, now, topic, r, sealed)
}
