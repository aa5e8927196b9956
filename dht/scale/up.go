package scale

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
)

// Reasons of a [capacity.Refusal] if no server is started, or none has come.
const (
	ProvisioningCooldown     = "provisioning-cooldown"       // one was started a short while ago
	ProvisioningMaxNodes     = "provisioning-max-nodes"      // the region has the policy's maximum
	ProvisioningFailed       = "provisioning-failed"         // the hook failed
	ProvisioningTimedOut     = "provisioning-timed-out"      // the hook succeeded, but no node has come
	ProvisioningWouldNotHelp = "provisioning-would-not-help" // a rule of the policy would reject a new server, too
	ProvisioningRoom         = "provisioning-room"           // the provisioner has found room itself
	ProvisioningUnknown      = "provisioning-unknown"        // it could not find out whether there is room
)

const (
	// arrivalGrace is how long after a new node was seen seekers are told to
	// look for it: they may not have seen it yet.
	arrivalGrace = 3 * time.Second
	// backOffMost bounds the time between two failing attempts.
	backOffMost = 10 * time.Minute
)

// A PendingServer is a server that has been started and is not there yet.
type PendingServer struct {
	Request string    // ID of the hook's request
	Until   time.Time // it is expected by then; provisioner's clock
	Started bool      // started by this very request
}

// A startPhase is the progress of a start.
type startPhase uint8

const (
	startIdle    startPhase = iota
	startRunning            // the hook runs
	startComing             // it succeeded: the node's record is awaited
)

// Up decides when a provisioner starts servers in one region: one at a time, at
// most one per cooldown, and after failures at intervals that double. It has no
// clock and is not safe for concurrent use. The zero Up has started none.
type Up struct {
	phase    startPhase
	request  string
	known    map[peer.ID]bool // in the region before the start
	arrived  bool             // a new node was seen while the hook ran
	begun    time.Time
	until    time.Time         // the new node is expected by then
	fresh    time.Time         // until then seekers are told to look for the last one
	cool     time.Time         // none is started before
	why      *capacity.Refusal // reason for the time until cool; nil: the cooldown
	failures int               // in a row
}

// Ask answers a seeker. If started, the caller runs the hook, calls Begin
// before and Ended after it.
func (s *Up) Ask(now time.Time, p policy.Provision, request string) (c PendingServer, refused *capacity.Refusal) {
	p = p.OrDefault()
	switch {
	case s.phase != startIdle:
		return PendingServer{Request: s.request, Until: s.until}, nil
	case now.Before(s.fresh):
		return PendingServer{Request: s.request, Until: s.fresh}, nil
	case now.Before(s.cool) && s.why != nil:
		why := *s.why
		why.RetryAfter = s.cool.Sub(now)
		return PendingServer{}, &why
	case now.Before(s.cool):
		return PendingServer{}, &capacity.Refusal{
			Reason: ProvisioningCooldown, Detail: fmt.Sprintf("a server was started %v ago", now.Sub(s.begun).Round(time.Second)), RetryAfter: s.cool.Sub(now),
		}
	}
	s.phase, s.request, s.begun, s.until, s.arrived = startRunning, request, now, now.Add(max(p.WaitTimeout, p.Cooldown)), false
	s.cool, s.why = now.Add(p.Cooldown), nil
	return PendingServer{Request: request, Until: s.until, Started: true}, nil
}

// Due reports whether Ask would have a server started now.
func (s *Up) Due(now time.Time) bool {
	return s.phase == startIdle && !now.Before(s.fresh) && !now.Before(s.cool)
}

// Begin takes the nodes in the region before the hook runs, and refuses if they
// are as many as the policy allows.
func (s *Up) Begin(now time.Time, p policy.Provision, nodes []peer.ID) *capacity.Refusal {
	p = p.OrDefault()
	if len(nodes) >= p.MaxNodes {
		s.phase, s.cool = startIdle, now.Add(p.Cooldown)
		s.why = &capacity.Refusal{Reason: ProvisioningMaxNodes, Detail: fmt.Sprintf("the region has %d nodes, and may have %d", len(nodes), p.MaxNodes)}
		return s.why
	}
	s.known = make(map[peer.ID]bool, len(nodes))
	for _, id := range nodes {
		s.known[id] = true
	}
	return nil
}

// Ended takes the result of the hook.
func (s *Up) Ended(now time.Time, p policy.Provision, err error) {
	p = p.OrDefault()
	switch {
	case s.phase != startRunning:
	case s.arrived:
		s.came(now)
	case err != nil:
		s.failed(now, p, ProvisioningFailed, "the hook that starts servers failed: "+err.Error())
	default:
		s.phase, s.until = startComing, now.Add(max(p.WaitTimeout, p.Cooldown))
	}
}

// Seen takes the nodes that are in the region now, and reports whether the
// start is settled: a new node is there, or none has come in time.
func (s *Up) Seen(now time.Time, p policy.Provision, nodes []peer.ID) (settled bool) {
	if s.phase == startIdle || s.known == nil {
		return false
	}
	for _, id := range nodes {
		if !s.known[id] {
			s.arrived = true
		}
	}
	switch {
	case s.phase == startRunning:
		return false
	case s.arrived:
		s.came(now)
		return true
	case !now.Before(s.until):
		p = p.OrDefault()
		s.failed(now, p, ProvisioningTimedOut, fmt.Sprintf("a server was to be started, but no node has come within %v", max(p.WaitTimeout, p.Cooldown)))
		return true
	}
	return false
}

func (s *Up) came(now time.Time) {
	s.phase, s.failures, s.why, s.known = startIdle, 0, nil, nil
	s.fresh = now.Add(arrivalGrace)
}

func (s *Up) failed(now time.Time, p policy.Provision, reason, detail string) {
	s.phase, s.known = startIdle, nil
	s.failures++
	wait := p.Cooldown
	for range s.failures - 1 {
		if wait = 2 * wait; wait >= backOffMost {
			break
		}
	}
	s.cool = now.Add(min(wait, max(backOffMost, p.Cooldown)))
	s.why = &capacity.Refusal{Reason: reason, Detail: detail}
}

// Pending reports whether a start is to be settled by [Up.Seen].
func (s *Up) Pending() bool { return s.phase != startIdle }

// Status is the state of Up for people.
type Status struct {
	Phase    string    `json:"phase"`              // "idle", "running" or "coming"
	LastRun  time.Time `json:"last_run,omitzero"`  //
	Cooldown time.Time `json:"cooldown,omitzero"`  // none is started before
	Failures int       `json:"failures,omitempty"` // in a row
	Last     string    `json:"last,omitempty"`     // why the last attempt failed
}

// Status returns the current state.
func (s *Up) Status() Status {
	st := Status{Phase: [...]string{"idle", "running", "coming"}[s.phase], LastRun: s.begun, Cooldown: s.cool, Failures: s.failures}
	if s.why != nil {
		st.Last = s.why.Error()
	}
	return st
}
