package placing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/tracing"
	"weir/cmd/weir/provision"
	"weir/cmd/weir/survey"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/dht/scale"
	"weir/sfu"
)

// RegionRecords are the records of a region's nodes that take placements, or will.
func (p *Placer) RegionRecords(ctx context.Context, region string) ([]capacity.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, survey.Timeout)
	defer cancel()
	topic := dht.ShardTopic(region, "")
	survey, err := p.Node.Reader.Survey(ctx, topic)
	if err == nil && !survey.Hearing.Enough() {
		err = &dht.Unanswered{Topic: topic, Hearing: survey.Hearing}
	}
	if err != nil {
		return nil, err
	}
	var records []capacity.Record
	add := func(r capacity.Record) {
		if r.Region == region && r.State != capacity.Draining {
			records = append(records, r)
		}
	}
	add(survey.Me)
	for _, c := range survey.Candidates {
		add(c.Record)
	}
	return records, nil
}

// RoomFor searches for a node with room for need, as for a redirect, and
// reserves that room for a moment: only the node itself knows its free
// capacity.
func (p *Placer) RoomFor(ctx context.Context, region string, need capacity.Need) (peer.ID, error) {
	need.Region = cmp.Or(need.Region, region)
	records, err := p.RegionRecords(ctx, region)
	if err != nil {
		return "", err
	}
	if most := largest(records); len(records) > 0 && (most.Uplink < need.Uplink || most.Packets < need.Packets) {
		return "", &capacity.Refusal{
			Reason:     scale.ProvisioningWouldNotHelp,
			Detail:     fmt.Sprintf("no node of the region could take %s and %d packets/s if it were empty: another one would not, either", term.Bitrate(need.Uplink), need.Packets),
			RetryAfter: placeRetryAfter,
		}
	}
	placed, d, err := p.Node.Seeker.Place(ctx, dht.CapacityTopic(), need, nil)
	var refused *capacity.Refusal
	switch {
	case err == nil:
		p.Node.Seeker.ReleaseLease(ctx, placed.Lease)
		return placed.Candidate.Record.Node, nil
	case errors.As(err, &refused) && refused.Reason != dht.Unreachable:
		return "", nil
	case refused != nil:
		return "", fmt.Errorf("%d nodes may have room and do not answer", len(d.Reservations))
	}
	return "", err
}

// largest is the most that any one of the nodes could take if it were empty.
func largest(records []capacity.Record) (most struct{ Uplink, Packets int64 }) {
	limit := func(u capacity.Usage) int64 {
		if u.Limit == 0 {
			return math.MaxInt64
		}
		return u.Limit
	}
	for _, r := range records {
		most.Uplink, most.Packets = max(most.Uplink, limit(r.Uplink)), max(most.Packets, limit(r.Packets))
	}
	return most
}

// awaitServer has a server started for a need that no node has room for, and
// waits until there is room, there or elsewhere, or until the policy's
// wait_timeout is over. The error is a *capacity.Refusal that says why
// provisioning did not help; without a provisioner it is refused itself.
func (p *Placer) awaitServer(ctx context.Context, need capacity.Need, exclude []peer.ID, refused *capacity.Refusal) (sfu.Helper, error) {
	if p.Waiters.NoProvisioner(time.Now()) {
		return sfu.Helper{}, refused
	}
	region := cmp.Or(need.Region, p.Region)
	me := p.Self()
	if rule := p.Policy().RejectsNew(need, me, region); rule != "" {
		return sfu.Helper{}, &capacity.Refusal{
			Reason:     scale.ProvisioningWouldNotHelp,
			Detail:     fmt.Sprintf("%s; a new server would not help: the policy's rule %q refuses it as well", refused.Detail, rule),
			RetryAfter: refused.RetryAfter,
		}
	}
	if !p.Waiters.Enter() {
		return sfu.Helper{}, &capacity.Refusal{Reason: refused.Reason, Detail: fmt.Sprintf("%s; %d requests wait for a server already", refused.Detail, scale.MaxWaiting), RetryAfter: refused.RetryAfter}
	}
	defer p.Waiters.Leave()
	began := time.Now()
	settings := p.Policy().Policy().Provision.OrDefault()
	ctx, cancel := context.WithTimeout(ctx, settings.WaitTimeout)
	defer cancel()
	helper, err := p.placeOnNewcomer(ctx, region, need, exclude, refused)
	if errors.Is(err, scale.ErrNoProvisioner) {
		p.Waiters.FoundNobody(time.Now())
		return helper, refused
	}
	outcome := "placed"
	e := sfu.Event{Stream: need.Stream, Peer: helper.Node, Trace: tracing.ID(ctx), Detail: helper.Why, Elapsed: capacity.Milliseconds(time.Since(began))}
	if err != nil {
		outcome, e.Detail = "refused", err.Error()
	}
	p.Outcomes.Add(outcome)
	e.Time, e.Kind = time.Now(), provision.Kind(outcome)
	p.Event(e)
	return helper, err
}

func (p *Placer) placeOnNewcomer(ctx context.Context, region string, need capacity.Need, exclude []peer.ID, refused *capacity.Refusal) (sfu.Helper, error) {
	deadline, _ := ctx.Deadline()
	began := time.Now()
	var asked time.Time
	why := refused // the error if the wait times out
	for {
		if time.Since(asked) >= provision.AskAgain {
			asked = time.Now()
			coming, err := p.Node.Provisioners.Provision(ctx, region, need, refused.Reason)
			var no *capacity.Refusal
			switch {
			case err == nil:
				why = &capacity.Refusal{
					Reason:     scale.ProvisioningTimedOut,
					Detail:     fmt.Sprintf("a server is on its way (request %s), but was not there within %v", coming.Request, time.Until(deadline).Round(time.Second)+time.Since(began).Round(time.Second)),
					RetryAfter: max(time.Until(coming.Until), time.Second),
				}
			case errors.As(err, &no):
				why = no
				if no.Reason == scale.ProvisioningFailed || no.Reason == scale.ProvisioningTimedOut || no.Reason == scale.ProvisioningWouldNotHelp || time.Now().Add(no.RetryAfter).After(deadline) {
					return sfu.Helper{}, no
				}
			case errors.Is(err, scale.ErrNoProvisioner):
				return sfu.Helper{}, err
			case ctx.Err() == nil:
				p.Log.Debug("provisioner not reached", "region", region, "err", err)
				why = &capacity.Refusal{Reason: "provisioner-unreachable", Detail: "who starts servers does not answer", RetryAfter: placeRetryAfter}
			}
		}
		after, room := p.Waiters.NextAttempt()
		turn := time.NewTimer(after)
		select {
		case <-turn.C:
		case <-room:
			turn.Stop()
		case <-ctx.Done():
			turn.Stop()
			if cause := context.Cause(ctx); !errors.Is(cause, context.DeadlineExceeded) {
				return sfu.Helper{}, cause // the client has gone
			}
			return sfu.Helper{}, why
		}
		helper, err := p.placeOnce(ctx, need, exclude)
		var again *capacity.Refusal
		if err == nil {
			p.Waiters.FoundRoom()
		}
		if err == nil || ctx.Err() == nil && !errors.As(err, &again) {
			return helper, err
		}
	}
}

// placeRetryAfter is the Retry-After of a refusal if it is not known when there
// will be room.
const placeRetryAfter = 5 * time.Second
