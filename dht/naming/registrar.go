package naming

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/task"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/liveness"
	"weir/dht/pb"
)

const (
	lookUpTime = 700 * time.Millisecond // to look up the holders of a stream's records

	// PollTime bounds a poll. It is longer than a holder may be silent before it
	// counts as unreachable, so that one that has just crashed delays one publisher,
	// once, and refuses nobody.
	PollTime = 6 * time.Second
	// firstAnswer bounds the first try to ask one node, and nextAnswer each that
	// follows askAfter later: what a slow node has begun is not thrown away twice.
	firstAnswer = 2 * time.Second
	nextAnswer  = 3 * time.Second
	askAfter    = 300 * time.Millisecond

	// When enough have answered, the others, if they have owed nothing so far,
	// have as long again as that took, within these bounds.
	othersLeast = 100 * time.Millisecond
	othersMost  = 300 * time.Millisecond

	// A node that gave way to another looks again after claimAgain, claimTries times
	// in all: the other may have given the name up, and its question have come late.
	claimAgain = 200 * time.Millisecond
	claimTries = 3

	maxRivals = 16  // named in one answer
	maxCloser = 8   // holders named in one answer
	maxPolled = 128 // nodes asked beyond the holders, for one name
)

// Config is what a Registrar works with. Functions are called from several
// goroutines.
type Config struct {
	ID        peer.ID
	Client    bool // it has no say itself
	Directory directory.Directory
	Live      *liveness.Detector
	Table     *holder.Table // of this node, as a holder

	// Published returns the record that this node publishes in topic.
	Published func(topic holder.Topic) (capacity.Record, bool)
	// LookUp looks the holders of topic up if they are not known.
	LookUp func(ctx context.Context, topic holder.Topic)
	// Ask asks one node, within limit. Of ctx it takes the trace only: a node that
	// is not waited for still gets the question.
	Ask func(ctx context.Context, id peer.ID, req *pb.Claim, limit time.Duration) (*pb.ClaimReply, error)
	// Introduced learns the addresses of another node, if w is one.
	Introduced func(w *pb.Peer) (peer.ID, bool)
	// Introduce returns a node with the addresses that are known of it.
	Introduce func(id peer.ID) *pb.Peer
	// Silence is why a node did not answer, in few words.
	Silence func(err error) string
}

// A Registrar takes the names of streams, for publishers at this node and as a
// voter for those at others. Close it after use.
type Registrar struct {
	cfg    Config
	claims claims
	tasks  task.Group // questions under way
}

// New returns a Registrar that knows of no name.
func New(cfg Config) *Registrar { return &Registrar{cfg: cfg} }

// Close lets no question begin any more and waits for those under way, which the
// owner of [Config.Ask] ends. It may be called more than once.
func (r *Registrar) Close() error {
	r.tasks.Stop()
	r.tasks.Wait()
	return nil
}

// Sweep drops what has run out.
func (r *Registrar) Sweep(now time.Time) { r.claims.sweep(now) }

// Publishers returns which other nodes stream is published at, in no order: one
// at most, unless it was taken twice. Each has said so itself. That there are
// none is what most of the holders have said, all of whose word on others was
// followed up; else the error is an [*place.Unanswered].
func (r *Registrar) Publishers(ctx context.Context, stream string) ([]peer.ID, error) {
	b, err := r.poll(ctx, holder.StreamTopic(stream), pb.Claim_ASK, nil)
	if err != nil {
		return nil, err
	}
	return b.publishers(), nil
}

// Claim takes the name of stream for a publisher at this node, until release is
// called. It is taken when most of the holders have noted the claim and know of
// no other, and every node that any of them named has said itself that it does
// not publish the stream: two nodes that take one name at the same time have a
// voter in common, which tells the later one of the earlier, and then the one with the
// smaller ID goes first.
//
// The error is a [*Taken], or an [*place.Unanswered] if too few have answered within
// some seconds; a holder that has been silent for [liveness.UnreachableAfter] is
// not counted any more, so that one that crashed is in nobody's way for longer.
func (r *Registrar) Claim(ctx context.Context, stream string) (release func(), err error) {
	for try := 1; ; try++ {
		release, err = r.claimOnce(ctx, stream)
		taken := new(Taken)
		if !errors.As(err, &taken) || !taken.Now || try == claimTries {
			return release, err
		}
		select {
		case <-time.After(claimAgain):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (r *Registrar) claimOnce(ctx context.Context, stream string) (release func(), err error) {
	topic := holder.StreamTopic(stream)
	own, ok := r.claims.begin(topic)
	if !ok {
		return nil, &Taken{At: r.cfg.ID}
	}
	b, err := r.poll(ctx, topic, pb.Claim_TAKE, own)
	if err == nil {
		if rival, ok := r.claims.settle(own); !ok {
			err = &Taken{At: rival, Now: true}
		}
	}
	if err != nil {
		r.claims.end(topic, own)
		r.claims.drop(topic, r.cfg.ID)
		b.giveUp()
		return nil, err
	}
	return func() { r.claims.end(topic, own) }, nil
}

// aliveFor is how long a node that a holder has heard from is there, whether it
// answers or not: longer than it takes to publish a stream's record again.
const aliveFor = holder.Keepalive + 2*time.Second

// rivalGone reports whether id, from which a holder heard last then, and which
// does not answer, is not there any more: it has said so, its machine has, or
// neither it nor any record of it has come for a while.
func (r *Registrar) rivalGone(id peer.ID, heard time.Time) bool {
	now := time.Now()
	return r.cfg.Live.HasLeft(id) || r.cfg.Live.Unreachable(now, id) && now.Sub(heard) > aliveFor
}

// Answer answers a question about a stream's name, or a claim to it, from another
// node. The topic is a stream's.
func (r *Registrar) Answer(now time.Time, from peer.ID, req *pb.Claim) *pb.ClaimReply {
	topic := holder.Topic(req.Topic)
	reply := r.here(now, from, topic, req.Intent)
	if !r.cfg.Directory.Holds() || req.Intent == pb.Claim_DROP {
		return reply
	}
	closer := r.cfg.Directory.Closer(now, topic, from, req.Known)
	for _, p := range closer[:min(len(closer), maxCloser)] {
		reply.Closer = append(reply.Closer, r.cfg.Introduce(p))
	}
	return reply
}

// here is what this node has to say to from of a stream's name: of its own,
// and as a holder. What from is about to do it notes.
func (r *Registrar) here(now time.Time, from peer.ID, topic holder.Topic, intent pb.Claim_Intent) *pb.ClaimReply {
	reply := &pb.ClaimReply{}
	holds := r.cfg.Directory.Holds()
	switch {
	case !holds:
	case intent == pb.Claim_TAKE:
		r.claims.note(now, topic, from)
	case intent == pb.Claim_DROP:
		r.claims.drop(topic, from)
	}
	if intent == pb.Claim_DROP {
		return reply
	}
	if from != r.cfg.ID {
		reply.Own = r.claims.meet(topic, r.cfg.ID, from, intent == pb.Claim_TAKE)
		if own, ok := r.cfg.Published(topic); ok && publishes(&own) {
			reply.Own = pb.ClaimReply_PUBLISHED
		}
	}
	if !holds {
		return reply
	}
	rivals := make(map[peer.ID]*pb.ClaimReply_Rival)
	for _, h := range r.cfg.Table.List(now, topic) {
		if publishes(&h.Record) {
			rivals[h.Node()] = &pb.ClaimReply_Rival{
				Node:    pb.PeerOf(peer.AddrInfo{ID: h.Node(), Addrs: h.Record.Addrs}),
				HeardMs: uint32(min(now.Sub(h.Received), capacity.MaxTTL).Milliseconds()),
			}
		}
	}
	if intent == pb.Claim_TAKE { // a node that only asks has nothing to fear from those about to
		for p, age := range r.claims.of(now, topic) {
			if rivals[p] == nil {
				rivals[p] = &pb.ClaimReply_Rival{Node: r.cfg.Introduce(p), HeardMs: uint32(age.Milliseconds())}
			}
		}
	}
	for p, w := range rivals {
		if p != from && p != r.cfg.ID && len(reply.Rivals) < maxRivals {
			reply.Rivals = append(reply.Rivals, w)
		}
	}
	return reply
}

// publishes reports whether r claims that its stream is published at its node.
func publishes(r *capacity.Record) bool { return r.Carries != nil && r.Carries.Origin }
