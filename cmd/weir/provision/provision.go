package provision

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/policy"
	"weir/cmd/weir/hook"
	"weir/cmd/weir/term"
	"weir/dht/scale"
	"weir/sfu"
)

const (
	// provisionWatch is how often a provisioner checks whether a new server has
	// come up.
	provisionWatch = 300 * time.Millisecond
	// AskAgain is how often, at most, a waiting node asks for the server's
	// progress.
	AskAgain = time.Second
	// lookTime bounds a provisioner's own search for room; lookAgain is how
	// long a search that prevented a start stays valid.
	lookTime  = 2500 * time.Millisecond
	lookAgain = time.Second
)

// A Provisioner starts servers for the regions it serves, one at a time, and
// releases idle ones. Package scale makes the decisions; this type runs them.
type Provisioner struct {
	hook    func(context.Context, hook.Input) error
	network string
	Regions []string
	Policy  func() policy.Provision
	Nodes   func(ctx context.Context, region string) ([]capacity.Record, error)
	// Room looks for a node with room for need, or returns "".
	Room   func(ctx context.Context, region string, need capacity.Need) (peer.ID, error)
	Invite func() (string, error)
	Event  func(sfu.Event)
	Counts *Outcomes
	log    *slog.Logger
	jobs   chan startJob // one a region at most: sending never waits

	mu    sync.Mutex
	state map[string]*regionState
}

type regionState struct {
	starts   scale.Up
	releases scale.Down
	looking  bool              // searching for room
	found    *capacity.Refusal // the outcome of the last search that prevented a start…
	until    time.Time         // …which is valid until then
}

// A startJob is one run of the hook.
type startJob struct {
	region  string
	request string
	need    capacity.Need
	reason  string
}

// New returns a provisioner; its node sets the remaining fields.
func New(hook func(context.Context, hook.Input) error, network string, regions []string, log *slog.Logger) *Provisioner {
	p := &Provisioner{hook: hook, network: network, Regions: regions, log: log, state: make(map[string]*regionState), jobs: make(chan startJob, len(regions))}
	for _, r := range regions {
		p.state[r] = &regionState{}
	}
	return p
}

// Start answers a seeker; it implements scale.Provisioner's callback. A server
// costs money, and the seeker may be mistaken, or lie: before a server is
// started, this node searches for room itself, once for all concurrent seekers.
func (p *Provisioner) Start(ctx context.Context, region string, need capacity.Need, reason string) (scale.PendingServer, error) {
	if refused := p.look(ctx, region, need); refused != nil {
		return scale.PendingServer{}, refused
	}
	request := rand.Text()
	p.mu.Lock()
	coming, refused := p.state[region].starts.Ask(time.Now(), p.Policy(), request)
	p.mu.Unlock()
	if refused != nil {
		return coming, refused
	}
	if coming.Started {
		p.jobs <- startJob{region, request, need, reason}
	}
	return coming, nil
}

// look returns why no new server is needed, as far as this node can see, or nil.
func (p *Provisioner) look(ctx context.Context, region string, need capacity.Need) *capacity.Refusal {
	p.mu.Lock()
	st, now := p.state[region], time.Now()
	switch {
	case !st.starts.Due(now):
		p.mu.Unlock()
		return nil
	case st.found != nil && now.Before(st.until):
		defer p.mu.Unlock()
		return st.found
	case st.looking:
		p.mu.Unlock()
		return &capacity.Refusal{Reason: scale.ProvisioningUnknown, Detail: "the provisioner is looking for room itself", RetryAfter: lookAgain}
	}
	st.looking = true
	p.mu.Unlock()
	looking, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	node, err := p.Room(looking, region, need)
	var refused *capacity.Refusal
	var vain *capacity.Refusal
	outcome := ""
	switch {
	case errors.As(err, &vain):
		refused, outcome = vain, "would_not_help"
	case err != nil:
		refused = &capacity.Refusal{Reason: scale.ProvisioningUnknown, Detail: "whether there is room the provisioner could not find out: " + err.Error(), RetryAfter: lookAgain}
		outcome = "unknown"
	case node != "":
		refused = &capacity.Refusal{Reason: scale.ProvisioningRoom, Detail: "the provisioner has found room itself, at node " + node.String(), RetryAfter: lookAgain}
		outcome = "room"
	}
	p.mu.Lock()
	st.looking, st.found, st.until = false, refused, time.Now().Add(lookAgain)
	p.mu.Unlock()
	if refused != nil {
		p.Counts.Add(outcome)
		p.log.Debug("no server started", "region", region, "reason", refused.Reason, "detail", refused.Detail)
	}
	return refused
}

// Leave answers a node that would like to end; it implements
// scale.Provisioner's callback.
func (p *Provisioner) Leave(ctx context.Context, region string, node peer.ID) error {
	records, err := p.Nodes(ctx, region)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.state[region]
	if st.starts.Pending() {
		return &capacity.Refusal{Reason: "release-starting", Detail: "a server is being started: there is need", RetryAfter: p.Policy().OrDefault().Cooldown}
	}
	if refused := st.releases.Ask(time.Now(), p.Policy(), node, records); refused != nil {
		return refused
	}
	p.Counts.Add("released")
	p.Event(sfu.Event{Time: time.Now(), Kind: "provision.released", Peer: node, Detail: "idle, in region " + cmp.Or(region, "-")})
	return nil
}

// Run runs the hook when start requests it, one run at a time, and keeps
// checking for new servers, until ctx is done.
func (p *Provisioner) Run(ctx context.Context) error {
	tick := time.NewTicker(provisionWatch)
	defer tick.Stop()
	for {
		select {
		case job := <-p.jobs:
			p.provision(ctx, job)
		case <-tick.C:
			p.settle(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// provision is one start, until the hook ends.
func (p *Provisioner) provision(ctx context.Context, job startJob) {
	began := time.Now()
	err := p.try(ctx, job)
	var refused *capacity.Refusal
	outcome := "started"
	switch {
	case errors.As(err, &refused):
		outcome = "max_nodes"
	case err != nil:
		outcome = "failed"
	}
	p.mu.Lock()
	p.state[job.region].starts.Ended(time.Now(), p.Policy(), err)
	p.mu.Unlock()
	p.Counts.Add(outcome)
	e := sfu.Event{Time: time.Now(), Kind: Kind(outcome), Stream: job.need.Stream, Detail: fmt.Sprintf("request %s in region %s, since %s", job.request, cmp.Or(job.region, "-"), job.reason), Elapsed: capacity.Milliseconds(time.Since(began))}
	if err != nil {
		e.Detail += ": " + err.Error()
	}
	p.Event(e)
}

func (p *Provisioner) try(ctx context.Context, job startJob) error {
	records, err := p.Nodes(ctx, job.region)
	if err != nil {
		return fmt.Errorf("the region's nodes are not known: %w", err)
	}
	p.mu.Lock()
	refused := p.state[job.region].starts.Begin(time.Now(), p.Policy(), idsOf(records))
	p.mu.Unlock()
	if refused != nil {
		return refused
	}
	token, err := p.Invite()
	if err != nil {
		return err
	}
	return p.hook(ctx, hook.Input{
		Action: "provision", Region: job.region, Reason: job.reason, Join: token, Request: job.request, Network: p.network,
		Need: &hook.Need{Purpose: job.need.Purpose, Uplink: job.need.Uplink, Packets: job.need.Packets, Stream: job.need.Stream},
	})
}

func idsOf(records []capacity.Record) []peer.ID {
	ids := make([]peer.ID, 0, len(records))
	for _, r := range records {
		ids = append(ids, r.Node)
	}
	return ids
}

// settle updates the starts under way. While the region's nodes are unknown,
// the absence of a new server is unknown too.
func (p *Provisioner) settle(ctx context.Context) {
	for _, region := range p.Regions {
		p.mu.Lock()
		pending := p.state[region].starts.Pending()
		p.mu.Unlock()
		if !pending {
			continue
		}
		records, err := p.Nodes(ctx, region)
		if err != nil {
			p.log.Debug("the region's nodes are not known", "region", region, "err", err)
			continue
		}
		p.mu.Lock()
		starts := &p.state[region].starts
		settled := starts.Seen(time.Now(), p.Policy(), idsOf(records))
		st := starts.Status()
		p.mu.Unlock()
		if !settled {
			continue
		}
		outcome, again := "arrived", ""
		if st.Failures > 0 {
			outcome, again = "timed_out", fmt.Sprintf("; %s in a row, again after %v", term.Count(st.Failures, "failure", "failures"), st.Cooldown)
		}
		p.Counts.Add(outcome)
		p.Event(sfu.Event{Time: time.Now(), Kind: Kind(outcome), Detail: "region " + cmp.Or(region, "-") + term.Prefixed(": ", st.Last) + again})
	}
}

// Status is the provisioner's state by region.
func (p *Provisioner) Status() map[string]scale.Status {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[string]scale.Status, len(p.state))
	for region, st := range p.state {
		all[region] = st.starts.Status()
	}
	return all
}

// Outcomes count the outcomes of provisioning.
type Outcomes struct{ Counter *prometheus.CounterVec }

// All outcomes: of starts and releases at the provisioner, and of the requests
// that waited here.
var outcomeNames = []string{"started", "failed", "max_nodes", "timed_out", "arrived", "released", "room", "unknown", "would_not_help", "placed", "refused"}

func NewOutcomes() *Outcomes {
	o := &Outcomes{prometheus.NewCounterVec(prometheus.CounterOpts{
		Namespace: "weir", Name: "provision_total",
		Help: "Requests for servers, by outcome: at the provisioner started, failed, max_nodes, timed_out, arrived, released, room (it found room itself), unknown (it could not find out), or would_not_help; where a client waited placed or refused.",
	}, []string{"outcome"})}
	for _, name := range outcomeNames {
		o.Counter.WithLabelValues(name)
	}
	return o
}

func (o *Outcomes) Add(outcome string) { o.Counter.WithLabelValues(outcome).Inc() }

// Kind is the kind of the event for an outcome.
func Kind(outcome string) event.Kind {
	switch outcome {
	case "max_nodes":
		return event.ProvisionMaxNodes
	case "timed_out":
		return event.ProvisionTimedOut
	}
	return event.Kind("provision." + outcome)
}
