package naming

import (
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
	"weir/dht/overlay"
	"weir/dht/pb"
	"weir/dht/place"
)

// A poll is a ballot in progress, owned by the goroutine that runs it.
type poll struct {
	ballot
	r      *Registrar
	topic  holder.Topic
	intent pb.Claim_Intent
	own    *ownClaim // nil unless claiming

	held    map[peer.ID]Publisher // what nodes said of their own publisher, but for Node
	asked   map[peer.ID]*polled
	closer  map[peer.ID]bool // holders that others named
	extra   int              // asked beside the voters
	answers chan pollAnswer
}

type polled struct {
	pending bool
	tries   int
	again   time.Time // not asked before then
}

type pollAnswer struct {
	from  peer.ID
	reply *pb.ClaimReply
	err   error
}

// newPoll makes a poll in which nobody has been asked.
func (r *Registrar) newPoll(topic holder.Topic, intent pb.Claim_Intent, own *ownClaim) *poll {
	return &poll{
		ballot: ballot{
			self: r.cfg.ID, taking: intent == pb.Claim_TAKE,
			said: make(map[peer.ID]pb.ClaimReply_Own), rivals: make(map[peer.ID]time.Time), errs: make(map[peer.ID]string),
			gone: r.rivalGone,
		},
		r: r, topic: topic, intent: intent, own: own,
		held: make(map[peer.ID]Publisher), asked: make(map[peer.ID]*polled), closer: make(map[peer.ID]bool), answers: make(chan pollAnswer, 16),
	}
}

// poll asks the voters about topic's name, and the nodes that they name, until
// the result is certain. The poll is never nil.
func (r *Registrar) poll(ctx context.Context, topic holder.Topic, intent pb.Claim_Intent, own *ownClaim) (*poll, error) {
	p := r.newPoll(topic, intent, own)
	if err := topic.CheckAsked(); err != nil {
		return p, err
	}
	ctx, cancel := context.WithTimeout(ctx, PollTime)
	defer cancel() // nodes whose answers are not waited for still get the question
	looking, done := context.WithTimeout(ctx, lookUpTime)
	r.cfg.LookUp(looking, topic)
	done()
	return p, p.run(ctx)
}

func (p *poll) run(ctx context.Context) error {
	began := time.Now()
	if !p.r.cfg.Client {
		p.heard(pollAnswer{from: p.self, reply: p.r.here(time.Now(), p.self, p.topic, p.intent)})
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	lost := make(<-chan struct{})
	if p.own != nil {
		lost = p.own.lost
	}
	var patient time.Time // the remaining nodes are waited for until then; zero: not enough have answered yet
	for {
		p.voters, p.must = p.r.cfg.Directory.Voters(time.Now(), p.topic, p.closerHeard())
		p.ask(ctx)
		now := time.Now()
		if taken := p.taken(); taken != nil && p.taking {
			return taken
		}
		found := !p.taking && len(p.publishers()) > 0 // one publisher is an answer already
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
			if rival, ok := p.r.claims.settle(time.Now(), p.own); !ok {
				return &Taken{At: rival, Now: true}
			}
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.Canceled) {
				return context.Canceled
			}
			return &place.Unanswered{Topic: p.topic, Hearing: p.hearing(), Rival: p.unheard()}
		}
	}
}

// closerHeard are the nodes that a voter named as closer and that have answered
// themselves.
func (p *poll) closerHeard() (list []peer.ID) {
	for id := range p.closer {
		if _, heard := p.said[id]; heard {
			list = append(list, id)
		}
	}
	return list
}

// complete reports whether every node asked has answered, except for those that
// owed answers before.
func (p *poll) complete() bool {
	for id := range p.asked {
		if _, heard := p.said[id]; !heard && !p.r.cfg.Live.Suspect(id) && !p.r.cfg.Live.Unreachable(time.Now(), id) {
			return false
		}
	}
	return true
}

// ask asks every node that is due: those that failed, again.
func (p *poll) ask(ctx context.Context) {
	now, claim := time.Now(), &pb.Claim{
		Topic: string(p.topic), Intent: p.intent, Proof: p.proof(),
		Known: p.r.cfg.Directory.Known(p.voters[:min(len(p.voters), holder.Replicas)]),
	}
	one := func(id peer.ID, voter bool) {
		at := p.asked[id]
		if _, heard := p.said[id]; heard || id == p.self || at != nil && (at.pending || now.Before(at.again)) {
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
		if !p.r.tasks.Go(func() {
			reply, err := p.r.cfg.Ask(ctx, id, claim, limit)
			select {
			case p.answers <- pollAnswer{id, reply, err}:
			case <-ctx.Done():
			}
		}) {
			at.again = now.Add(PollTime)
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

// proof proves the right of the publisher that asks.
func (p *poll) proof() []byte {
	if p.own == nil {
		return nil
	}
	return prove(p.own.right, p.topic, p.self)
}

// maxHeldMs is the longest time that a name counts as held: a century.
const maxHeldMs = 100 * 366 * 24 * 3600 * 1000

// heard takes in one answer.
func (p *poll) heard(a pollAnswer) {
	if at := p.asked[a.from]; at != nil {
		at.pending, at.again = false, time.Now().Add(askAfter)
	}
	if a.err != nil {
		p.errs[a.from] = overlay.Silence(a.err)
		return
	}
	p.said[a.from] = a.reply.Own
	if a.reply.Own == pb.ClaimReply_PUBLISHED {
		p.held[a.from] = Publisher{Held: time.Duration(min(a.reply.HeldMs, maxHeldMs)) * time.Millisecond, Same: a.reply.SameRight}
	}
	for _, w := range a.reply.Rivals[:min(len(a.reply.Rivals), maxRivals)] {
		if id, ok := p.r.cfg.Introduced(w.Node); ok && id != p.self {
			heard := time.Now().Add(-time.Duration(w.HeardMs) * time.Millisecond)
			if last, known := p.rivals[id]; !known || heard.After(last) {
				p.rivals[id] = heard
			}
		}
	}
	for _, w := range a.reply.Closer[:min(len(a.reply.Closer), maxCloser)] {
		if id, ok := p.r.cfg.Introduced(w); ok && id != p.self {
			p.closer[id] = true
		}
	}
}

// giveUp tells every node asked that the claim is given up.
func (p *poll) giveUp() {
	for id := range p.asked {
		p.r.tasks.Go(func() {
			_, _ = p.r.cfg.Ask(context.Background(), id, &pb.Claim{Topic: string(p.topic), Intent: pb.Claim_DROP}, firstAnswer)
		})
	}
}
