package dht

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/dht/holder"
	"weir/dht/pb"
	"weir/dht/place"
)

const (
	namingTime = 700 * time.Millisecond // to look up who holds a stream's records

	// namedWithin bounds the question whose a name is. It is longer than a holder
	// may be silent before it counts as gone, so that one that has just crashed
	// delays one publisher, once, and refuses nobody.
	namedWithin = 6 * time.Second
	// firstAnswer bounds the first try to ask one node, and nextAnswer each that
	// follows askAfter later: what a slow node has begun is not thrown away twice.
	firstAnswer = 2 * time.Second
	nextAnswer  = 3 * time.Second
	askAfter    = 300 * time.Millisecond
	// askIfThere is how long an answer may take before the node's machine is asked
	// whether the node is still there.
	askIfThere = 200 * time.Millisecond

	// When enough have answered, the others, if they have owed nothing so far,
	// have as long again as that took, within these bounds.
	othersLeast = 100 * time.Millisecond
	othersMost  = 300 * time.Millisecond

	// Who gave way to another that was about to take the name looks again after
	// claimAgain, claimTries times in all: the other may have given it up, and its
	// question have come late.
	claimAgain = 200 * time.Millisecond
	claimTries = 3

	maxRivals = 16  // named in one answer
	maxPolled = 128 // nodes asked beyond the holders, for one name
)

// Taken is the error of a claim to a name that another node has.
type Taken struct {
	At peer.ID
	// Now: At is only about to publish the stream, and goes first.
	Now bool
}

// Error says where the stream is published.
func (e *Taken) Error() string {
	if e.Now {
		return "its name is being taken at the same time at node " + e.At.String()
	}
	return "it is being published at node " + e.At.String()
}

// Publishers returns which other nodes stream is published at, in no order: one
// at most, unless it was taken twice. Each has said so itself. That there are
// none is what most of the holders have said, all of whose word on others was
// followed up; else the error is an [*Unanswered].
func (n *Node) Publishers(ctx context.Context, stream string) ([]peer.ID, error) {
	b, err := n.poll(ctx, StreamTopic(stream), pb.Claim_ASK, nil)
	if err != nil {
		return nil, err
	}
	return b.publishers(), nil
}

// Claim takes the name of stream for a publisher at this node, until release is
// called. It is taken when most of the holders have noted the claim and know of
// no other, and every node that any of them named has said itself that it does
// not publish the stream: two who take one name at the same time have a holder
// in common, which tells the later one of the earlier, and then the one with the
// smaller ID goes first.
//
// The error is a [*Taken], or an [*Unanswered] if too few have answered within
// some seconds; a holder that has been silent for [liveness.UnreachableAfter] is not counted any
// more, so that one that crashed is in nobody's way for longer.
func (n *Node) Claim(ctx context.Context, stream string) (release func(), err error) {
	ctx, span := tracing.Start(ctx, n.tracer, "claim", trace.SpanKindInternal, tracing.Stream.String(stream))
	defer func() {
		if taken := new(Taken); errors.As(err, &taken) {
			tracing.Fail(span, "name-taken")
		} else if err != nil {
			tracing.Fail(span, errorWord(err))
		}
		span.End()
	}()
	for try := 1; ; try++ {
		release, err = n.claimOnce(ctx, stream)
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

func (n *Node) claimOnce(ctx context.Context, stream string) (release func(), err error) {
	topic := StreamTopic(stream)
	own, ok := n.claims.begin(topic)
	if !ok {
		return nil, &Taken{At: n.ID()}
	}
	b, err := n.poll(ctx, topic, pb.Claim_TAKE, own)
	if err == nil {
		if rival, ok := n.claims.settle(own); !ok {
			err = &Taken{At: rival, Now: true}
		}
	}
	if err != nil {
		n.claims.end(topic, own)
		n.claims.drop(topic, n.ID())
		b.giveUp()
		return nil, err
	}
	return func() { n.claims.end(topic, own) }, nil
}

// A ballot is what those who have to know of a name have said. It has no clock
// and asks nobody.
type ballot struct {
	self   peer.ID
	taking bool
	must   int
	voters []peer.ID                             // who have to know
	words  map[peer.ID]pb.ClaimReply_Own         // of each that has answered
	rivals map[peer.ID]time.Time                 // nodes that one of them named, and when it heard from them last
	errs   map[peer.ID]string                    // why others have not answered
	gone   func(p peer.ID, heard time.Time) bool // of a rival: it is not there any more
}

// publishers are those that say that they publish it.
func (b *ballot) publishers() []peer.ID {
	var list []peer.ID
	for p, word := range b.words {
		if word == pb.ClaimReply_PUBLISHED {
			list = append(list, p)
		}
	}
	slices.Sort(list)
	return list
}

// taken is why the name is not free for who asks, or nil.
func (b *ballot) taken() *Taken {
	if at := b.publishers(); len(at) > 0 {
		return &Taken{At: at[0]}
	}
	var first peer.ID
	for p, word := range b.words {
		if b.taking && word == pb.ClaimReply_TAKING && (first == "" || p < first) {
			first = p
		}
	}
	if first == "" {
		return nil
	}
	return &Taken{At: first, Now: true}
}

// unheard is a rival that has not answered, nor is known to be gone, or "".
func (b *ballot) unheard() (rival peer.ID) {
	for p, last := range b.rivals {
		if _, heard := b.words[p]; !heard && !b.gone(p, last) && (rival == "" || p < rival) {
			rival = p
		}
	}
	return rival
}

func (b *ballot) hearing() Hearing {
	var silent []Silence
	for _, p := range b.voters {
		if _, heard := b.words[p]; !heard {
			silent = append(silent, Silence{Node: p, Err: b.errs[p]})
		}
	}
	return place.Hear(len(b.voters), len(b.voters)-len(silent), b.must, silent)
}

// A poll is a ballot under way, owned by the goroutine that runs it.
type poll struct {
	ballot
	n      *Node
	topic  Topic
	intent pb.Claim_Intent
	own    *ownClaim // nil unless taking

	asked   map[peer.ID]*polled
	closer  map[peer.ID]bool // holders that others named
	extra   int              // asked though no voters
	answers chan pollAnswer
}

type polled struct {
	pending bool
	tries   int
	again   time.Time // not to be asked before
}

type pollAnswer struct {
	from  peer.ID
	reply *pb.ClaimReply
	err   error
}

// poll asks those who have to know of topic's name, and whom they name, until
// it is certain whose it is. The poll is never nil.
func (n *Node) poll(ctx context.Context, topic Topic, intent pb.Claim_Intent, own *ownClaim) (*poll, error) {
	p := &poll{
		ballot: ballot{
			self: n.ID(), taking: intent == pb.Claim_TAKE,
			words: make(map[peer.ID]pb.ClaimReply_Own), rivals: make(map[peer.ID]time.Time), errs: make(map[peer.ID]string),
			gone: n.rivalGone,
		},
		n: n, topic: topic, intent: intent, own: own,
		asked: make(map[peer.ID]*polled), closer: make(map[peer.ID]bool), answers: make(chan pollAnswer, 16),
	}
	if err := topic.CheckAsked(); err != nil {
		return p, err
	}
	ctx, cancel := context.WithTimeout(ctx, namedWithin)
	defer cancel() // those who were not waited for still get the question
	if h, looked := n.dir.Holders(time.Now(), topic); !looked && !h.All && n.cache.Begin(time.Now(), topic) {
		naming, done := context.WithTimeout(ctx, namingTime)
		n.lookUps.Now(naming, topic)
		done()
	}
	return p, p.run(ctx)
}

func (p *poll) run(ctx context.Context) error {
	began := time.Now()
	if p.n.self() != "" {
		p.heard(pollAnswer{from: p.self, reply: p.n.nameHere(time.Now(), p.self, p.topic, p.intent)})
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	lost := make(<-chan struct{})
	if p.own != nil {
		lost = p.own.lost
	}
	var patient time.Time // until when those left are waited for; zero: not enough have answered yet
	for {
		p.voters, p.must = p.n.dir.Voters(time.Now(), p.topic, p.closerHeard())
		p.ask(ctx)
		now := time.Now()
		if taken := p.taken(); taken != nil && p.taking {
			return taken
		}
		found := !p.taking && len(p.publishers()) > 0 // one is an answer already
		switch {
		case !found && (!p.hearing().Enough() || p.unheard() != ""):
			patient = time.Time{}
		case p.complete():
			return nil
		case patient.IsZero():
			patient = now.Add(min(max(now.Sub(began), othersLeast), othersMost))
		case !now.Before(patient):
			return nil
		}
		select {
		case a := <-p.answers:
			p.heard(a)
		case <-tick.C:
		case <-lost:
			if rival, ok := p.n.claims.settle(p.own); !ok {
				return &Taken{At: rival, Now: true}
			}
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return context.Canceled
			}
			return &Unanswered{Topic: p.topic, Hearing: p.hearing(), Rival: p.unheard()}
		}
	}
}

// closerHeard are the nodes that a voter named as closer and that have answered
// themselves.
func (p *poll) closerHeard() (list []peer.ID) {
	for id := range p.closer {
		if _, heard := p.words[id]; heard {
			list = append(list, id)
		}
	}
	return list
}

// complete reports whether everybody asked has answered, but for those that
// have owed answers before.
func (p *poll) complete() bool {
	for id := range p.asked {
		if _, heard := p.words[id]; !heard && !p.n.reach.Suspect(id) && !p.n.reach.Unreachable(time.Now(), id) {
			return false
		}
	}
	return true
}

// ask asks everybody who is to be asked now: again those that failed.
func (p *poll) ask(ctx context.Context) {
	now, known := time.Now(), p.n.dir.Known(p.voters[:min(len(p.voters), holder.Replicas)])
	one := func(id peer.ID, voter bool) {
		at := p.asked[id]
		if _, heard := p.words[id]; heard || id == p.self || at != nil && (at.pending || now.Before(at.again)) {
			return
		}
		if at == nil {
			if !voter {
				if p.extra++; p.extra > maxPolled {
					return
				}
			}
			at = &polled{}
			p.asked[id] = at
		}
		at.pending = true
		limit := firstAnswer
		if at.tries++; at.tries > 1 {
			limit = nextAnswer
		}
		if !p.n.start(func() {
			reply, err := p.n.askName(ctx, id, p.topic, p.intent, known, limit)
			select {
			case p.answers <- pollAnswer{id, reply, err}:
			case <-ctx.Done():
			}
		}) {
			at.again = now.Add(namedWithin)
		}
	}
	for _, id := range p.voters {
		one(id, true)
	}
	for id := range p.closer {
		one(id, false)
	}
	for id := range p.rivals {
		one(id, false)
	}
}

// heard takes in one answer.
func (p *poll) heard(a pollAnswer) {
	if at := p.asked[a.from]; at != nil {
		at.pending, at.again = false, time.Now().Add(askAfter)
	}
	if a.err != nil {
		p.errs[a.from] = silence(a.err)
		return
	}
	p.words[a.from] = a.reply.Own
	for _, w := range a.reply.Rivals[:min(len(a.reply.Rivals), maxRivals)] {
		if id, ok := p.n.introduced(w.Node); ok {
			heard := time.Now().Add(-time.Duration(w.HeardMs) * time.Millisecond)
			if last, known := p.rivals[id]; !known || heard.After(last) {
				p.rivals[id] = heard
			}
		}
	}
	for _, w := range a.reply.Closer[:min(len(a.reply.Closer), maxCloser)] {
		if id, ok := p.n.introduced(w); ok {
			p.closer[id] = true
		}
	}
}

// giveUp tells everybody who was asked that the name is not taken after all.
func (p *poll) giveUp() {
	for id := range p.asked {
		p.n.start(func() { _, _ = p.n.askName(context.Background(), id, p.topic, pb.Claim_DROP, nil, firstAnswer) })
	}
}

// silence is why a node did not answer, in few words.
func silence(err error) string {
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, errLate):
		return "no answer in time"
	case errors.Is(err, errUnreachable):
		return "unreachable"
	case errors.Is(err, network.ErrResourceLimitExceeded):
		return "this node has too many requests under way"
	}
	return clip(plain(err.Error(), maxReason), maxReason)
}

// introduced learns the addresses of a node that another one named.
func (n *Node) introduced(w *pb.Peer) (peer.ID, bool) {
	ai, err := peerFromWire(w)
	if err != nil || ai.ID == n.ID() {
		return "", false
	}
	if n.host.Network().Connectedness(ai.ID) != network.Connected {
		n.learn(ai.ID, ai.Addrs)
	}
	return ai.ID, true
}

// aliveFor is how long a node that a holder has heard from is there, whether it
// answers or not: longer than it takes to publish a stream's record again.
const aliveFor = holder.Keepalive + 2*time.Second

// rivalGone reports whether id, from which a holder heard last then, and which
// does not answer, is not there any more: it has said so, its machine has, or
// neither it nor any record of it has come for a while.
func (n *Node) rivalGone(id peer.ID, heard time.Time) bool {
	now := time.Now()
	return n.reach.HasLeft(id) || n.reach.Unreachable(now, id) && now.Sub(heard) > aliveFor
}

// askName asks one node about a name. Of ctx it takes the trace only: who is not
// waited for still gets the question.
func (n *Node) askName(ctx context.Context, id peer.ID, topic Topic, intent pb.Claim_Intent, known []byte, limit time.Duration) (*pb.ClaimReply, error) {
	ctx, cancel := context.WithTimeout(tracing.Carry(n.ctx, ctx), limit)
	defer cancel()
	crashed := time.AfterFunc(askIfThere, func() {
		n.start(func() {
			if n.refuses(ctx, id) {
				n.reach.Leave(time.Now(), id)
				cancel()
			}
		})
	})
	defer crashed.Stop()
	n.locate(ctx, id)
	var resp pb.Response
	req := &pb.Request{Op: &pb.Request_Claim{Claim: &pb.Claim{Topic: string(topic), Intent: intent, Known: known}}}
	rtt, _, err := n.call(ctx, id, n.records, req, &resp, maxQueryReply)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) && n.ctx.Err() == nil {
			err = fmt.Errorf("%w: nothing listens there any more", errUnreachable)
		}
		n.failed(id, err)
		return nil, err
	}
	n.answered(id, rtt)
	switch {
	case resp.Error != "":
		return nil, fmt.Errorf("it refused: %.200s", resp.Error)
	case resp.GetClaim() == nil:
		return nil, errors.New("it answered something else")
	}
	return resp.GetClaim(), nil
}

// serveClaim answers who asks for a stream's name.
func (n *Node) serveClaim(from peer.ID, req *pb.Claim) *pb.Response {
	topic := Topic(req.Topic)
	if err := topic.Check(); err != nil {
		return errorReply(err)
	}
	if topic.Stream() == "" {
		return errorReply(fmt.Errorf("%s is no stream: it has no name to take", topic))
	}
	reply := n.nameHere(time.Now(), from, topic, req.Intent)
	if n.dir.Holds() && req.Intent != pb.Claim_DROP {
		for _, p := range n.dir.Closer(time.Now(), topic, from, req.Known) {
			if len(reply.Closer) < maxCloser {
				reply.Closer = append(reply.Closer, peerToWire(n.host.Peerstore().PeerInfo(p)))
			}
		}
	}
	return &pb.Response{Op: &pb.Response_Claim{Claim: reply}}
}

// nameHere is what this node has to say to from of a stream's name: of its own,
// and as a holder. What from is about to do it notes.
func (n *Node) nameHere(now time.Time, from peer.ID, topic Topic, intent pb.Claim_Intent) *pb.ClaimReply {
	reply := &pb.ClaimReply{}
	holds := n.dir.Holds()
	switch {
	case !holds:
	case intent == pb.Claim_TAKE:
		n.claims.note(now, topic, from)
	case intent == pb.Claim_DROP:
		n.claims.drop(topic, from)
	}
	if intent == pb.Claim_DROP {
		return reply
	}
	if from != n.ID() {
		reply.Own = n.claims.meet(topic, n.ID(), from, intent == pb.Claim_TAKE)
		if r, _, ok := n.publisher.Published(topic); ok && publishes(&r) {
			reply.Own = pb.ClaimReply_PUBLISHED
		}
	}
	if !holds {
		return reply
	}
	rivals := make(map[peer.ID]*pb.ClaimReply_Rival)
	for _, h := range n.table.List(now, topic) {
		if publishes(&h.Record) {
			rivals[h.Node()] = &pb.ClaimReply_Rival{
				Node:    peerToWire(peer.AddrInfo{ID: h.Node(), Addrs: h.Record.Addrs}),
				HeardMs: uint32(min(now.Sub(h.Received), capacity.MaxTTL).Milliseconds()),
			}
		}
	}
	if intent == pb.Claim_TAKE { // who only asks has nothing to fear from who is about to
		for p, age := range n.claims.of(now, topic) {
			if rivals[p] == nil {
				rivals[p] = &pb.ClaimReply_Rival{Node: peerToWire(n.host.Peerstore().PeerInfo(p)), HeardMs: uint32(age.Milliseconds())}
			}
		}
	}
	for p, w := range rivals {
		if p != from && p != n.ID() && len(reply.Rivals) < maxRivals {
			reply.Rivals = append(reply.Rivals, w)
		}
	}
	return reply
}

// publishes reports whether r claims that its stream is published at its node.
func publishes(r *capacity.Record) bool { return r.Carries != nil && r.Carries.Origin }
