package naming

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/task"
	"weir/capacity/tracing"
	"weir/dht/directory"
	"weir/dht/holder"
	"weir/dht/liveness"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/place"
)

const (
	lookUpTime = 700 * time.Millisecond // to look up the holders of a stream's records

	// PollTime bounds a poll. It is longer than a holder may be silent before
	// it counts as unreachable, so that a holder that has just crashed delays
	// one publisher, once, and makes no claim fail.
	PollTime = 6 * time.Second
	// firstAnswer bounds the first request to a node, and nextAnswer each later
	// one, which follows askAfter later: they are so long that a slow node's
	// work is not thrown away twice.
	firstAnswer = 2 * time.Second
	nextAnswer  = 3 * time.Second
	askAfter    = 300 * time.Millisecond

	// When enough nodes have answered, the others, unless they owed answers
	// before, have as long again as that took, within these bounds.
	othersLeast = 100 * time.Millisecond
	othersMost  = 300 * time.Millisecond

	// A node that gave way to another claim looks again after claimAgain,
	// claimTries times in all: the other may have given the name up, and its
	// question have come late.
	claimAgain = 200 * time.Millisecond
	claimTries = 3

	maxRivals = 16  // named in one answer
	maxCloser = 8   // holders named in one answer
	maxPolled = 128 // nodes asked beyond the holders, for one name
)

// Config is a Registrar's view of its node. Functions are called from several
// goroutines.
type Config struct {
	ID        peer.ID
	Client    bool // it does not vote itself
	Directory directory.Directory
	Live      *liveness.Detector
	Table     *holder.Table // this node's, as a holder

	// Published returns the record that this node publishes in topic.
	Published func(topic holder.Topic) (capacity.Record, bool)
	// Yield has this node's publisher of stream give way to one at another node,
	// of the same right or not, and reports whether it does. Nil: none ever does.
	Yield func(stream string, same bool) bool
	// LookUp looks up the holders of topic if they are not known.
	LookUp func(ctx context.Context, topic holder.Topic)
	// Ask asks one node, within limit. It takes only the trace of ctx: a node
	// whose answer is not waited for still gets the question.
	Ask func(ctx context.Context, id peer.ID, req *pb.Claim, limit time.Duration) (*pb.ClaimReply, error)
	// Introduced learns the addresses in w, of a node that may be this one. It
	// is not ok if w is invalid.
	Introduced func(w *pb.Peer) (peer.ID, bool)
	// Introduce returns a node with its known addresses.
	Introduce func(id peer.ID) *pb.Peer
	Tracer    trace.Tracer
}

// A Registrar claims the names of streams, for publishers at this node, and
// votes on the claims of other nodes. Close it after use.
type Registrar struct {
	cfg    Config
	claims claims
	tasks  task.Group // questions in flight
}

// New returns a Registrar that knows of no name.
func New(cfg Config) *Registrar { return &Registrar{cfg: cfg} }

// Close lets no new question begin and waits for those in flight, which the
// owner of [Config.Ask] ends. It may be called more than once.
func (r *Registrar) Close() error {
	r.tasks.Stop()
	r.tasks.Wait()
	return nil
}

// Sweep drops expired claims.
func (r *Registrar) Sweep(now time.Time) { r.claims.sweep(now) }

// A Publisher is a node at which a stream is published, as it says itself.
type Publisher struct {
	Node peer.ID
	Held time.Duration // for how long; 0: it is of a release that does not say
	Same bool          // by the right asked for
}

// Publishers returns the other nodes at which stream is published, in no order:
// one at most, unless the name was taken twice. Each has confirmed it itself.
// An empty result means that most of the holders have answered, and that every
// node they named was asked; else the error is an [*place.Unanswered]. Right is
// one that the publishers may have, or nil.
func (r *Registrar) Publishers(ctx context.Context, stream string, right []byte) ([]Publisher, error) {
	b, err := r.poll(ctx, holder.StreamTopic(stream), pb.Claim_ASK, &ownClaim{right: right, lost: make(chan struct{})})
	if err != nil {
		return nil, err
	}
	var all []Publisher
	for _, id := range b.publishers() {
		p := b.held[id]
		p.Node = id
		all = append(all, p)
	}
	return all, nil
}

// Claim takes the name of stream for a publisher at this node that has right,
// until release is called. The claim succeeds when most of the holders have noted it and know of
// no other, and every node that any of them named has denied publishing the
// stream. Two nodes that claim one name at the same time have a voter in
// common, which tells the later one of the earlier, and then the one with the
// smaller ID goes first.
//
// The error is a [*Taken], or an [*place.Unanswered] if too few have answered
// within some seconds. A holder that has been silent for
// [liveness.UnreachableAfter] does not count any more, so that a crashed one
// blocks no claim for longer.
func (r *Registrar) Claim(ctx context.Context, stream string, right []byte) (release func(), err error) {
	ctx, span := tracing.Start(ctx, r.cfg.Tracer, "claim", trace.SpanKindInternal, tracing.Stream.String(stream))
	defer span.End()
	release, err = r.claim(ctx, stream, right)
	switch {
	case err == nil:
	case errors.As(err, new(*Taken)):
		tracing.Fail(span, "name-taken")
	case errors.Is(err, place.ErrUnanswered):
		tracing.Fail(span, place.NotKnown)
	default:
		tracing.Fail(span, overlay.ErrorType(err))
	}
	return release, err
}

func (r *Registrar) claim(ctx context.Context, stream string, right []byte) (release func(), err error) {
	for try := 1; ; try++ {
		release, err = r.claimOnce(ctx, stream, right)
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

func (r *Registrar) claimOnce(ctx context.Context, stream string, right []byte) (release func(), err error) {
	topic := holder.StreamTopic(stream)
	own, ok := r.claims.begin(topic, right)
	if !ok {
		return nil, &Taken{At: r.cfg.ID}
	}
	b, err := r.poll(ctx, topic, pb.Claim_TAKE, own)
	if err == nil {
		if rival, ok := r.claims.settle(time.Now(), own); !ok {
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

// Pass has stream's name, if this node has it, go over to another publisher here,
// that has right: from now on it is held by that, and since now.
func (r *Registrar) Pass(stream string, right []byte) {
	r.claims.pass(time.Now(), holder.StreamTopic(stream), right)
}

// aliveFor is how long a node that a holder has heard from counts as running,
// whether it answers or not: longer than it takes to publish a stream's record
// again.
const aliveFor = holder.Keepalive + 2*time.Second

// rivalGone reports whether id, which does not answer and from which a holder
// heard last at heard, has gone: it has said so, its machine has, or neither an
// answer nor a record of it has come for a while.
func (r *Registrar) rivalGone(id peer.ID, heard time.Time) bool {
	now := time.Now()
	return r.cfg.Live.HasLeft(id) || r.cfg.Live.Unreachable(now, id) && now.Sub(heard) > aliveFor
}

// Answer answers a question about a stream's name, or a claim to it, from another
// node. The error is why it asks for nothing that has a name.
func (r *Registrar) Answer(now time.Time, from peer.ID, req *pb.Claim) (*pb.ClaimReply, error) {
	topic := holder.Topic(req.Topic)
	if err := topic.Check(); err != nil {
		return nil, err
	}
	if topic.Stream() == "" {
		return nil, fmt.Errorf("%s is no stream: it has no name to take", topic)
	}
	age, same := r.claims.held(now, topic, from, req.Proof)
	yielded := age > 0 && from != r.cfg.ID && req.Intent == pb.Claim_TAKE && r.yield(topic, same)
	reply := r.here(now, from, topic, req.Intent)
	if yielded {
		reply.Own = pb.ClaimReply_FREE // its record will say so soon
	} else {
		reply.HeldMs, reply.SameRight = uint64(age.Milliseconds()), same
	}
	if !r.cfg.Directory.Holds() || req.Intent == pb.Claim_DROP {
		return reply, nil
	}
	closer := r.cfg.Directory.Closer(now, topic, from, req.Known)
	for _, p := range closer[:min(len(closer), maxCloser)] {
		reply.Closer = append(reply.Closer, r.cfg.Introduce(p))
	}
	return reply, nil
}

// yield has a publisher at this node give way, if it does, and gives up its
// claim.
func (r *Registrar) yield(topic holder.Topic, same bool) bool {
	if r.cfg.Yield == nil || !r.cfg.Yield(topic.Stream(), same) {
		return false
	}
	r.claims.yield(topic)
	return true
}

// here is this node's answer to from about a stream's name: for itself, and as
// a holder. It notes from's intent.
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
	if intent == pb.Claim_TAKE { // a node that only asks does not conflict with a pending claim
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

// publishes reports whether r claims that its stream is published at its node,
// and not only waits for its publisher there.
func publishes(r *capacity.Record) bool {
	return r.Carries != nil && r.Carries.Origin && r.Carries.State == capacity.Live
}
