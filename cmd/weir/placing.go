package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/dht"
	"weir/dht/naming"
	"weir/sfu"
	"weir/sfu/meter"
)

// cascadeProtocol is the name of the cascade links' signalling, below
// /weir/<network-id>/.
const cascadeProtocol = "cascade/1"

// addrs are this node's libp2p addresses, at most as many as a ticket can hold.
func (n *node) addrs() []multiaddr.Multiaddr {
	all := n.dht.Overlay.Host.Addrs()
	return all[:min(len(all), capacity.MaxAddrs)]
}

// dial opens the signalling of a cascade link, and keeps the connection below
// it open for as long.
func (n *node) dial(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr) (sfu.Signal, error) {
	s, err := n.dht.Overlay.OpenStream(ctx, id, addrs, cascadeProtocol)
	if err != nil {
		return nil, err
	}
	n.dht.Overlay.Protect(id)
	return s, nil
}

// handover opens a stream on which a client's request is redirected to id.
func (n *node) handover(ctx context.Context, id peer.ID, addrs []multiaddr.Multiaddr) (sfu.Signal, error) {
	s, err := n.dht.Overlay.OpenStream(ctx, id, addrs, sfu.OverflowProtocol)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// locate finds a carrier of the stream and reserves a pull on it.
func (n *node) locate(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Carrier, error) {
	placed, d, err := n.dht.Seeker.Place(ctx, dht.StreamTopic(need.Stream), need, exclude)
	n.decided(ctx, d, err)
	if err != nil {
		return sfu.Carrier{}, notLive(d, err)
	}
	return sfu.Carrier{Node: placed.Candidate.Record.Node, Addrs: placed.Candidate.Record.Addrs, Lease: placed.Lease.ID}, nil
}

// live reports whether another node carries the stream, as reported now by the
// holders of its records.
func (n *node) live(ctx context.Context, stream string) bool {
	ctx, cancel := context.WithTimeout(ctx, liveTime)
	defer cancel()
	answer, err := n.dht.Seeker.Find(ctx, dht.StreamTopic(stream), meter.DefaultNeed(capacity.View, stream), []peer.ID{n.dht.ID()})
	if err != nil {
		n.log.Debug("stream looked for in vain", "stream", stream, "err", err)
	}
	return len(answer.Candidates) > 0 || len(answer.Rejected) > 0
}

// decided stores and counts a placement that ended with err.
func (n *node) decided(ctx context.Context, d dht.Decision, err error) {
	n.view.Decided(d)
	e := placementEvent(d, err)
	e.Trace = tracing.ID(ctx)
	n.events.Add(e)
	n.counters.Decided(d, err)
}

// event handles the SFU's events.
func (n *node) event(e sfu.Event) {
	n.counters.Event(e)
	n.events.Add(e)
}

// claim claims the name of a stream for a publisher at this node.
func (n *node) claim(ctx context.Context, stream string) (release func(), err error) {
	release, err = n.dht.Names.Claim(ctx, stream)
	var taken *naming.Taken
	if errors.As(err, &taken) {
		return nil, &sfu.TakenError{Node: taken.At, Now: taken.Now}
	}
	return release, unanswered(err)
}

// published returns the other nodes where the stream is published.
func (n *node) published(ctx context.Context, stream string) ([]peer.ID, error) {
	nodes, err := n.dht.Names.Publishers(ctx, stream)
	return nodes, unanswered(err)
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

// place finds a helper for a client that this node cannot take; if need be it
// has a server started.
func (n *node) place(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Helper, error) {
	finding, cancel := context.WithTimeout(ctx, placeTime)
	defer cancel()
	helper, err := n.placeOnce(finding, need, exclude)
	var refused *capacity.Refusal
	if errors.As(err, &refused) && refused.Reason == dht.Unreachable {
		// No node that may have room has said that it has none.
		return helper, &sfu.UnansweredError{Why: "this node is full, and those that may have room do not answer: " + refused.Detail, RetryAfter: placeRetryAfter}
	}
	if refused != nil && ctx.Err() == nil {
		return n.awaitServer(ctx, need, exclude, refused)
	}
	return helper, err
}

// placeAny finds a helper among the existing nodes, and returns the features in
// its record. For a viewer, a node that carries the stream already is best: it
// needs no new pull.
func (n *node) placeAny(ctx context.Context, need capacity.Need, exclude []peer.ID) (sfu.Helper, []string, error) {
	if need.Purpose == capacity.View {
		placed, d, err := n.dht.Seeker.Place(ctx, dht.StreamTopic(need.Stream), need, exclude)
		n.decided(ctx, d, err)
		if err == nil {
			return helper(placed, d, "carries it already"), placed.Candidate.Record.Features, nil
		}
		if errors.Is(notLive(d, err), sfu.ErrNotLive) && !n.carries(need.Stream) {
			return sfu.Helper{}, nil, sfu.ErrNotLive
		}
	}
	placed, d, err := n.dht.Seeker.Place(ctx, dht.CapacityTopic(), need, exclude)
	n.decided(ctx, d, err)
	if silent := new(dht.Unanswered); errors.As(err, &silent) {
		return sfu.Helper{}, nil, &sfu.UnansweredError{Why: "this node is full, and who has room cannot be found out: " + silent.Words(), RetryAfter: placeRetryAfter}
	}
	if err != nil {
		return sfu.Helper{}, nil, err
	}
	return helper(placed, d, "will pull it"), placed.Candidate.Record.Features, nil
}

func (n *node) carries(stream string) bool {
	return slices.ContainsFunc(n.sfu.Carriages(), func(c capacity.Carriage) bool { return c.Stream == stream })
}

func helper(p dht.Placed, d dht.Decision, how string) sfu.Helper {
	r := p.Candidate.Record
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
		Node: r.Node, Addrs: r.Addrs, URL: r.URL, Lease: p.Lease,
		Why: fmt.Sprintf("chosen with score %.2f at stress %.2f, of %d that passed (%d records held); %s; found in %.1f ms, reserved in %.1f ms",
			score, r.Stress(), passed, d.Held, how, d.FindMillis, d.ReserveMillis),
	}
}
