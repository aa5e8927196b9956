package holding

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	cpb "weir/capacity/pb"
	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/dht/holder"
	"weir/dht/pb"
)

const (
	digestAddrs   = 2   // addresses in a digest
	maxDigestAddr = 128 // bytes of each
	// trustScale is full trust (1) on the wire.
	trustScale = 10_000
)

// DigestToWire encodes o without the parts that the seeker does not need yet.
func DigestToWire(now time.Time, o *holder.Offer) *pb.Digest {
	w := &pb.Digest{
		Node:   []byte(o.Record.Node),
		Seq:    o.Record.Seq,
		Age:    uint32(min(max(0, now.Sub(o.Received)), 2*capacity.MaxTTL).Milliseconds()),
		Stress: uint32(math.Round(min(o.Stress, 1_000) * 1e4)),
		Rtt:    uint32(min(o.RTT, time.Minute).Microseconds()),
	}
	if o.Headroom >= 0 {
		headroom := uint64(o.Headroom)
		w.Headroom = &headroom
	}
	for _, t := range o.Terms {
		w.Terms = append(w.Terms, float32(t.Value))
	}
	for _, a := range dialable(o.Record.Addrs) {
		w.Addrs = append(w.Addrs, a.Bytes())
	}
	return w
}

// dialable picks the addresses of a digest: one of each transport first.
func dialable(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	if len(addrs) <= digestAddrs {
		return addrs
	}
	quic := func(a multiaddr.Multiaddr) bool {
		_, err := a.ValueForProtocol(multiaddr.P_QUIC_V1)
		return err == nil
	}
	first := addrs[0]
	for _, a := range addrs[1:] {
		if quic(a) != quic(first) {
			return []multiaddr.Multiaddr{first, a}
		}
	}
	return addrs[:digestAddrs]
}

// digestFromWire checks and decodes w, which from sent. The terms are those of
// p, whose weights give the score.
func digestFromWire(now time.Time, from peer.ID, p policy.Policy, w *pb.Digest) (holder.Offer, error) {
	id, err := peer.IDFromBytes(w.Node)
	if err != nil {
		return holder.Offer{}, fmt.Errorf("node: %w", err)
	}
	switch {
	case w.Seq == 0:
		return holder.Offer{}, errors.New("no sequence number")
	case len(w.Terms) != len(p.Score):
		return holder.Offer{}, fmt.Errorf("%d terms, the policy has %d", len(w.Terms), len(p.Score))
	case len(w.Addrs) > digestAddrs:
		return holder.Offer{}, fmt.Errorf("%d addresses, at most %d", len(w.Addrs), digestAddrs)
	}
	o := holder.Offer{Stress: float64(w.Stress) / 1e4, Headroom: -1, Holder: from}
	if w.Headroom != nil {
		o.Headroom = int64(min(*w.Headroom, math.MaxInt64))
	}
	o.Record = capacity.Record{
		Node:   id,
		Seq:    w.Seq,
		Issued: now.Add(-min(time.Duration(w.Age)*time.Millisecond, 2*capacity.MaxTTL)),
	}
	o.RTT = min(time.Duration(w.Rtt)*time.Microsecond, time.Minute)
	o.Trust = 1
	for i, x := range w.Terms {
		t := p.Score[i]
		score := float64(x) * t.Weight
		o.Terms = append(o.Terms, policy.TermScore{Name: t.Name, Value: float64(x), Weight: t.Weight, Score: score})
		o.Score += score
	}
	if math.IsNaN(o.Score) || math.IsInf(o.Score, 0) {
		return holder.Offer{}, errors.New("its score is no number")
	}
	for _, b := range w.Addrs {
		if len(b) > maxDigestAddr {
			return holder.Offer{}, fmt.Errorf("address of %d bytes", len(b))
		}
		a, err := multiaddr.NewMultiaddrBytes(b)
		if err != nil {
			return holder.Offer{}, err
		}
		o.Record.Addrs = append(o.Record.Addrs, a)
	}
	return o, nil
}

// DigestsFromWire checks and decodes from's digests. As with records, one
// invalid digest is an error for all.
func DigestsFromWire(now time.Time, from peer.ID, policy policy.Policy, sent []*pb.Digest) ([]holder.Offer, error) {
	offers := make([]holder.Offer, 0, len(sent))
	for _, w := range sent {
		o, err := digestFromWire(now, from, policy, w)
		if err != nil {
			return nil, fmt.Errorf("digest: %w", err)
		}
		offers = append(offers, o)
	}
	return offers, nil
}

// ReportToWire encodes d.
func ReportToWire(d holder.Report) *pb.Report {
	return &pb.Report{Node: []byte(d.Node), Trust: uint32(math.Round(min(1, max(0, d.Trust)) * trustScale))}
}

// reportsOf is a holder's report of c, or none.
func reportsOf(c *policy.Candidate) []*pb.Report {
	if c.Trust >= 1 {
		return nil
	}
	return []*pb.Report{ReportToWire(holder.Report{Node: c.Record.Node, Trust: c.Trust})}
}

// ReportsFromWire checks and decodes a peer's reports. One invalid report is an
// error for all.
func ReportsFromWire(sent []*pb.Report, most int) ([]holder.Report, error) {
	if len(sent) > most {
		return nil, fmt.Errorf("%d reports, at most %d", len(sent), most)
	}
	reports := make([]holder.Report, 0, len(sent))
	for _, w := range sent {
		id, err := peer.IDFromBytes(w.Node)
		switch {
		case err != nil:
			return nil, fmt.Errorf("report: %w", err)
		case w.Trust > trustScale:
			return nil, fmt.Errorf("report: a trust of %d, at most %d", w.Trust, trustScale)
		}
		reports = append(reports, holder.Report{Node: id, Trust: float64(w.Trust) / trustScale})
	}
	return reports, nil
}

// EventToWire encodes e for a watcher, with the time held as of now.
func EventToWire(now time.Time, e holder.Event) *pb.Event {
	if e.Gone {
		return &pb.Event{Gone: []byte(e.Held.Node())}
	}
	return &pb.Event{
		Sealed: e.Held.Sealed,
		HeldMs: uint32(min(now.Sub(e.Held.Received), capacity.MaxTTL).Milliseconds()),
	}
}

// NeedFromWire decodes and checks a need.
func NeedFromWire(w *cpb.Need) (capacity.Need, error) {
	if w == nil {
		return capacity.Need{}, errors.New("no need given")
	}
	need := signed.NeedFromWire(w)
	return need, need.Check()
}
