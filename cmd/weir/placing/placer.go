package placing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/policy"
	"weir/capacity/tracing"
	"weir/cmd/weir/provision"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/naming"
	"weir/dht/scale"
	"weir/sfu"
	"weir/sfu/meter"
	"weir/sfu/rights"
)

const (
	// placeTime bounds a search for a helper.
	placeTime = 8 * time.Second
	// liveTime bounds a search for a stream that a client waits for.
	liveTime = 2 * time.Second
	// CascadeProtocol is the name of the cascade links' signalling, below
	// /weir/<network-id>/.
	CascadeProtocol = "cascade/1"
	// maxUnbelieving bounds the helpers excluded for one client because they do
	// not trust this node's tickets.
	maxUnbelieving = 4
)

// A Placer carries out what the media part asks of the network: who carries a
// stream, who takes a client that this node cannot, who else publishes a name.
// If nobody has room it has a server started, and waits for it.
type Placer struct {
	Node     *dht.Node
	Region   string // of this node
	Policy   func() *policy.Compiled
	Self     func() capacity.Record // this node's own
	Carried  func() []capacity.StreamInfo
	Rights   *rights.Rights // nil: no client needs a right
	Outcomes *provision.Outcomes
	Decided  func(dht.Decision, error) // told each placement
	Event    func(event.Event)
	Log      *slog.Logger

	Waiters scale.Queue
}

// Addrs are this node's libp2p addresses, at most as many as a ticket can hold.
func (p *Placer) Addrs() []multiaddr.Multiaddr {
	all := p.Node.Overlay.Host.Addrs()
	return all[:min(len(all), capacity.MaxAddrs)]
}

// Dial opens the signalling of a cascade link, and keeps the connection below
// it open for as long.
func (p *Placer) Dial(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr) (sfu.Signal, error) {
	s, err := p.Node.Overlay.OpenStream(ctx, id, addrs, CascadeProtocol)
	if err != nil {
		return nil, err
	}
	p.Node.Overlay.Protect(id)
	return s, nil
}

// Handover opens a stream on which a client's request is redirected to id.
func (p *Placer) Handover(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr) (sfu.Signal, error) {
	s, err := p.Node.Overlay.OpenStream(ctx, id, addrs, sfu.OverflowProtocol)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Locate finds a carrier of the stream and reserves a pull on it.
func (p *Placer) Locate(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Carrier, error) {
	placed, d, err := p.Node.Seeker.Place(ctx, dht.StreamTopic(need.Stream), need, exclude)
	p.report(ctx, d, err)
	if err != nil {
		return sfu.Carrier{}, notLive(d, err)
	}
	return sfu.Carrier{Node: placed.Candidate.Record.Node, Addrs: placed.Candidate.Record.Addrs, Lease: placed.Lease.ID}, nil
}

// Live reports whether another node carries the stream, as reported now by the
// holders of its records.
func (p *Placer) Live(ctx context.Context, stream string) bool {
	ctx, cancel := context.WithTimeout(ctx, liveTime)
	defer cancel()
	answer, err := p.Node.Seeker.Find(ctx, dht.StreamTopic(stream), meter.DefaultNeed(capacity.View, stream), []peer.ID{p.Node.ID()})
	if err != nil {
		p.Log.Debug("stream looked for in vain", "stream", stream, "err", err)
	}
	return len(answer.Candidates) > 0 || len(answer.Rejected) > 0
}

// report tells a placement that ended with err.
func (p *Placer) report(ctx context.Context, d dht.Decision, err error) {
	p.Decided(d, err)
	e := placementEvent(d, err)
	e.Trace = tracing.ID(ctx)
	p.Event(e)
}

// Claim claims the name of a stream for a publisher at this node that has right.
func (p *Placer) Claim(ctx context.Context, stream string, right []byte) (release func(), err error) {
	release, err = p.Node.Names.Claim(ctx, stream, right)
	var taken *naming.Taken
	if errors.As(err, &taken) {
		return nil, &sfu.TakenError{Node: taken.At, Now: taken.Now}
	}
	return release, unanswered(err)
}

// Published returns the other nodes where the stream is published, by right or
// another.
func (p *Placer) Published(ctx context.Context, stream string, right []byte) ([]sfu.Rival, error) {
	nodes, err := p.Node.Names.Publishers(ctx, stream, right)
	var all []sfu.Rival
	for _, at := range nodes {
		all = append(all, sfu.Rival(at))
	}
	return all, unanswered(err)
}

// unanswered wraps err in an [*sfu.UnansweredError] if it means that holders
// did not answer, so that nothing is known.
func unanswered(err error) error {
	var silent *dht.Unanswered
	if !errors.As(err, &silent) {
		return err
	}
	return &sfu.UnansweredError{Why: silent.Words()}
}

// notLive is [sfu.ErrNotLive] if the placement failed because no node carries
// the stream, according to the holders of its records, and err otherwise.
func notLive(d dht.Decision, err error) error {
	var refusal *capacity.Refusal
	if errors.As(err, &refusal) && refusal.Reason == dht.NoCandidates && d.Held == 0 {
		return sfu.ErrNotLive
	}
	return unanswered(err)
}

// Place finds a helper for a client that this node cannot take; if need be it
// has a server started.
func (p *Placer) Place(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Helper, error) {
	finding, cancel := context.WithTimeout(ctx, placeTime)
	defer cancel()
	helper, err := p.placeOnce(finding, need, exclude)
	var refused *capacity.Refusal
	if errors.As(err, &refused) && refused.Reason == dht.Unreachable {
		// No node that may have room has said that it has none.
		return helper, &sfu.UnansweredError{Why: "this node is full, and those that may have room do not answer: " + refused.Detail, RetryAfter: placeRetryAfter}
	}
	if refused != nil && ctx.Err() == nil {
		return p.awaitServer(ctx, need, exclude, refused)
	}
	return helper, err
}

// placeAny finds a helper among the existing nodes, and returns the features in
// its record. For a viewer, a node that carries the stream already is best: it
// needs no new pull.
func (p *Placer) placeAny(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Helper, []string, error) {
	if need.Purpose == capacity.View {
		placed, d, err := p.Node.Seeker.Place(ctx, dht.StreamTopic(need.Stream), need, exclude)
		p.report(ctx, d, err)
		if err == nil {
			return helper(placed, d, "carries it already"), placed.Candidate.Record.Features, nil
		}
		if errors.Is(notLive(d, err), sfu.ErrNotLive) && !p.carries(need.Stream) {
			return sfu.Helper{}, nil, sfu.ErrNotLive
		}
	}
	placed, d, err := p.Node.Seeker.Place(ctx, dht.CapacityTopic(), need, exclude)
	p.report(ctx, d, err)
	if silent := new(dht.Unanswered); errors.As(err, &silent) {
		return sfu.Helper{}, nil, &sfu.UnansweredError{Why: "this node is full, and who has room cannot be found out: " + silent.Words(), RetryAfter: placeRetryAfter}
	}
	if err != nil {
		return sfu.Helper{}, nil, err
	}
	return helper(placed, d, "will pull it"), placed.Candidate.Record.Features, nil
}

func (p *Placer) carries(stream string) bool {
	return slices.ContainsFunc(p.Carried(), func(c capacity.StreamInfo) bool { return c.Stream == stream })
}

func helper(placed dht.Placed, d dht.Decision, how string) sfu.Helper {
	r := placed.Candidate.Record
	score := 0.0
	passed := 0
	for _, v := range d.Verdicts {
		if v.Rule == "" {
			passed++
		}
		if v.Node == r.Node {
			score = v.Score
		}
	}
	return sfu.Helper{
		Node: r.Node, Addrs: r.Addrs, URL: r.URL, Lease: placed.Lease,
		Why: fmt.Sprintf("chosen with score %.2f at stress %.2f, of %d that passed (%d records held); %s; found in %.1f ms, reserved in %.1f ms",
			score, r.Stress(), passed, d.Held, how, d.FindMillis, d.ReserveMillis),
	}
}

// placeOnce finds a helper among the existing nodes that trust this node's
// tickets.
func (p *Placer) placeOnce(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Helper, error) {
	for given := 0; ; given++ {
		helper, features, err := p.placeAny(ctx, need, exclude)
		if err != nil || p.Rights.SharesSecret(helper.Node, features) {
			return helper, err
		}
		p.Log.Debug("helper does not share the secret for tickets", "helper", helper.Node)
		p.Node.Seeker.ReleaseLease(ctx, helper.Lease)
		if exclude = append(slices.Clone(exclude), helper.Node); given == maxUnbelieving {
			return sfu.Helper{}, &capacity.Refusal{Reason: "tickets", Detail: "the nodes that have room do not share this node's secret for tickets"}
		}
	}
}

// placementEvent is the event of a placement that ended with err.
func placementEvent(d dht.Decision, err error) event.Event {
	e := event.Event{Time: time.Now(), Kind: event.Placement, Stream: d.Need.Stream, Peer: d.Chosen, Elapsed: d.TotalMillis, Reason: d.Refused}
	passed := 0
	for _, v := range d.Verdicts {
		if v.Rule == "" {
			passed++
		}
	}
	e.Detail = fmt.Sprintf("for %s: %d of %s passed", d.Need.Purpose, passed, term.Count(len(d.Verdicts), "candidate", "candidates"))
	if err != nil {
		e.Detail += ": " + err.Error()
	}
	return e
}
