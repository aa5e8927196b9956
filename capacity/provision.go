package capacity

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Why no server is started, or none has come, as reasons of a [Refusal].
const (
	NoProvisioner            = "no-provisioner"              // nobody is set up to start servers
	ProvisioningCooldown     = "provisioning-cooldown"       // one was started a short while ago
	ProvisioningMaxNodes     = "provisioning-max-nodes"      // the region has as many as it may
	ProvisioningFailed       = "provisioning-failed"         // the hook failed
	ProvisioningTimedOut     = "provisioning-timed-out"      // the hook went well, but no node has come
	ProvisioningWouldNotHelp = "provisioning-would-not-help" // a rule of the policy would refuse a new server, too
	ProvisioningRoom         = "provisioning-room"           // the provisioner has found room itself
	ProvisioningUnknown      = "provisioning-unknown"        // whether there is room it could not find out
)

const (
	// arrivalGrace is how long after a newcomer was seen seekers are told to
	// look for it: they may not have seen it yet.
	arrivalGrace = 3 * time.Second
	// backOffMost bounds the time between two tries that fail.
	backOffMost = 10 * time.Minute
	// leaveTime is how long a node that may leave has for it: until then it does
	// not count as one that stays.
	leaveTime = time.Minute
)

// RejectsNew returns the rule by which need would be refused even by a server
// that has just been started in region, like our own but without any limit, or
// "": then one that is started may help.
func (j *Judge) RejectsNew(need Need, me Record, region string) (rule string) {
	r := me
	r.Node, r.State, r.Region, r.Carries, r.Coordinate = "new", Active, region, nil, nil
	r.Uplink, r.Downlink, r.Packets, r.Sessions, r.Streams = Usage{}, Usage{}, Usage{}, Usage{}, Usage{}
	r.Reserved, r.CPU, r.CPULimit = 0, 0, 0
	for _, v := range j.Rank(need, me, []Candidate{{Record: r, Believed: 1}}).Rejected {
		rule = v.Rule
	}
	return rule
}

// A Coming is a server that is on its way.
type Coming struct {
	Request string    // of the hook
	Until   time.Time // by when it is expected; provisioner's clock
	Started bool      // by this very question
}

// A startPhase is how far a start has come.
type startPhase uint8

const (
	startIdle    startPhase = iota
	startRunning            // the hook runs
	startComing             // it went well: the node's record is awaited
)

// Starts decides when a provisioner starts servers in one region: one at a time,
// at most one a cooldown, and after failures at intervals that double. It has no
// clock and is not safe for concurrent use. The zero Starts has started none.
type Starts struct {
	phase    startPhase
	request  string
	known    map[peer.ID]bool // in the region before the start
	arrived  bool             // somebody new was seen while the hook ran
	begun    time.Time
	until    time.Time // by when the newcomer is expected
	fresh    time.Time // until when seekers are told to look for the last one
	cool     time.Time // none is started before
	why      *Refusal  // of the time until cool; nil: the cooldown
	failures int       // in a row
}

// Ask answers a seeker. If started, the caller runs the hook, calls Begin
// before and Ended after it.
func (s *Starts) Ask(now time.Time, p Provision, request string) (c Coming, refused *Refusal) {
	p = p.OrDefault()
	switch {
	case s.phase != startIdle:
		return Coming{Request: s.request, Until: s.until}, nil
	case now.Before(s.fresh):
		return Coming{Request: s.request, Until: s.fresh}, nil
	case now.Before(s.cool) && s.why != nil:
		why := *s.why
		why.RetryAfter = s.cool.Sub(now)
		return Coming{}, &why
	case now.Before(s.cool):
		return Coming{}, &Refusal{ProvisioningCooldown, fmt.Sprintf("a server was started %v ago", now.Sub(s.begun).Round(time.Second)), s.cool.Sub(now)}
	}
	s.phase, s.request, s.begun, s.until, s.arrived = startRunning, request, now, now.Add(max(p.Wait, p.Cooldown)), false
	s.cool, s.why = now.Add(p.Cooldown), nil
	return Coming{Request: request, Until: s.until, Started: true}, nil
}

// Due reports whether Ask would have a server started now.
func (s *Starts) Due(now time.Time) bool {
	return s.phase == startIdle && !now.Before(s.fresh) && !now.Before(s.cool)
}

// Begin takes the nodes that are in the region before the hook runs, and says
// why it must not: there are as many as there may be.
func (s *Starts) Begin(now time.Time, p Provision, nodes []peer.ID) *Refusal {
	p = p.OrDefault()
	if len(nodes) >= p.Most {
		s.phase, s.cool = startIdle, now.Add(p.Cooldown)
		s.why = &Refusal{Reason: ProvisioningMaxNodes, Detail: fmt.Sprintf("the region has %d nodes, and may have %d", len(nodes), p.Most)}
		return s.why
	}
	s.known = make(map[peer.ID]bool, len(nodes))
	for _, id := range nodes {
		s.known[id] = true
	}
	return nil
}

// Ended takes how the hook ended.
func (s *Starts) Ended(now time.Time, p Provision, err error) {
	p = p.OrDefault()
	switch {
	case s.phase != startRunning:
	case s.arrived:
		s.came(now)
	case err != nil:
		s.failed(now, p, ProvisioningFailed, "the hook that starts servers failed: "+err.Error())
	default:
		s.phase, s.until = startComing, now.Add(max(p.Wait, p.Cooldown))
	}
}

// Seen takes the nodes that are in the region now, and reports whether that
// settles a start: somebody new is there, or nobody has come in time.
func (s *Starts) Seen(now time.Time, p Provision, nodes []peer.ID) (settled bool) {
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
		s.failed(now, p, ProvisioningTimedOut, fmt.Sprintf("a server was to be started, but no node has come within %v", max(p.Wait, p.Cooldown)))
		return true
	}
	return false
}

func (s *Starts) came(now time.Time) {
	s.phase, s.failures, s.why, s.known = startIdle, 0, nil, nil
	s.fresh = now.Add(arrivalGrace)
}

func (s *Starts) failed(now time.Time, p Provision, reason, detail string) {
	s.phase, s.known = startIdle, nil
	s.failures++
	wait := p.Cooldown
	for range s.failures - 1 {
		if wait = 2 * wait; wait >= backOffMost {
			break
		}
	}
	s.cool = now.Add(min(wait, max(backOffMost, p.Cooldown)))
	s.why = &Refusal{Reason: reason, Detail: detail}
}

// Pending reports whether a start is to be settled by [Starts.Seen].
func (s *Starts) Pending() bool { return s.phase != startIdle }

// StartsStatus is Starts for people.
type StartsStatus struct {
	Phase    string    `json:"phase"`              // "idle", "running" or "coming"
	LastRun  time.Time `json:"last_run,omitzero"`  //
	Cooldown time.Time `json:"cooldown,omitzero"`  // none is started before
	Failures int       `json:"failures,omitempty"` // in a row
	Last     string    `json:"last,omitempty"`     // why the last try failed
}

// Status tells how far things are.
func (s *Starts) Status() StartsStatus {
	st := StartsStatus{Phase: [...]string{"idle", "running", "coming"}[s.phase], LastRun: s.begun, Cooldown: s.cool, Failures: s.failures}
	if s.why != nil {
		st.Last = s.why.Error()
	}
	return st
}

// Releases decides which nodes of a region may end: one a cooldown, as long as
// enough stay and have room. It has no clock and is not safe for concurrent use.
type Releases struct {
	last    time.Time
	granted map[peer.ID]time.Time
}

// Ask answers node, which is idle and would like to end, given the records of
// its region. Nil: it may. Asked again soon it gets the same answer.
func (r *Releases) Ask(now time.Time, p Provision, node peer.ID, region []Record) *Refusal {
	p = p.OrDefault()
	for id, at := range r.granted {
		if now.Sub(at) >= leaveTime {
			delete(r.granted, id)
		}
	}
	if _, again := r.granted[node]; again {
		return nil
	}
	if wait := r.last.Add(p.Cooldown).Sub(now); !r.last.IsZero() && wait > 0 {
		return &Refusal{"release-cooldown", "another node was released a short while ago", wait}
	}
	stay, stress := 0, 0.0
	for i := range region {
		rec := &region[i]
		if _, leaves := r.granted[rec.Node]; leaves || rec.Node == node || rec.State == Draining {
			continue
		}
		stay++
		stress += rec.Stress()
	}
	switch {
	case stay < p.Least:
		return &Refusal{"release-least", fmt.Sprintf("%d other nodes would stay in the region, at least %d must", stay, p.Least), p.Cooldown}
	case stress/float64(stay) >= PackTarget:
		return &Refusal{"release-room", fmt.Sprintf("the others' stress is %.2f on average: they need the room", stress/float64(stay)), p.Cooldown}
	}
	if r.granted == nil {
		r.granted = make(map[peer.ID]time.Time)
	}
	r.granted[node], r.last = now, now
	return nil
}

// Idle tells how long a node has had nothing to do. The zero Idle has just
// begun.
type Idle struct{ since time.Time }

// Next takes whether the node is empty now, and returns for how long it has
// been so without a break.
func (i *Idle) Next(now time.Time, empty bool) time.Duration {
	if !empty || i.since.IsZero() {
		i.since = now
	}
	return now.Sub(i.since)
}
