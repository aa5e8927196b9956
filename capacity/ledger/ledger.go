package ledger

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

const (
	// SettleTime is how long an active entry's promise is counted beside the
	// measured load: the meter needs that long to include it.
	SettleTime = 3 * time.Second

	maxLeases     = 4096 // in total; one costs about 300 bytes
	maxLeasesFrom = 256  // per node: 25 redirects per second

	// cascadePart is the part of uplink and packets, one in so many, that only
	// cascades may fill, so that a full node can still relay its streams.
	cascadePart = 10

	retryAfter = 5 * time.Second
)

const (
	// DefaultDelayLimit is how late a node may be before it takes nothing more:
	// receivers' jitter buffers make up for about as much.
	DefaultDelayLimit = 50 * time.Millisecond
	// LateTime is how long after a node was late it is full, and takes no more
	// than lateRoom of what it carried then. Its use does not show what it lacks:
	// by that it looks emptier than others once some of its sessions have ended,
	// and seekers would fill it until it is late again.
	LateTime = 2 * time.Minute
	lateRoom = 0.85
)

// roomAt replaces FreeAt for resources that a ledger counts: they do not flap,
// as the CPU does, and the ledger admits no more than there is room for anyway.
// With FreeAt, in a test with 1,000 nodes loaded to 85 % of the viewers' part,
// nodes that had once been full stayed closed for minutes, which filled the
// others: 3 % of all viewers found no place.
const roomAt = 0.88

// ErrNoLease is returned by [Ledger.Claim].
var ErrNoLease = errors.New("no such lease: unknown, expired or claimed already")

// Limits are the bounds of a node's load; 0 means unlimited.
type Limits struct {
	Sessions int   // WHIP and WHEP sessions
	Uplink   int64 // bit/s
	Packets  int64 // packets/s, forwarded
	Streams  int
	Share    Share // of all that, for one node's leases
}

// Share bounds the unclaimed leases of one node, and so the demand of one
// message: a promise costs the requesting node nothing. Own leases of the
// ledger's node are not bounded by it.
type Share struct {
	Part int // one part in so many of each limit, but at least one session and stream; 0: unlimited

	Uplink, Packets int64 // allowed in any case, if a part of the limit is less
}

// DefaultShare is a tenth, or one stream in 1080p60 if a tenth is less.
func DefaultShare() Share { return Share{Part: 10, Uplink: 8_000_000, Packets: 1_000} }

// Load is the meter's measurement.
type Load struct {
	Uplink   int64   // bit/s
	Packets  int64   // packets/s
	CPU      float64 // share of the cores in use
	CPULimit float64 // the share that counts as exhausted; 0: not counted

	Delay      time.Duration // by which packets are served late
	DelayLimit time.Duration // from which on nothing more is taken; 0: not counted
}

// A Ledger decides what one node admits, by its promises and the measured load.
// Its decisions are authoritative; records are hints.
//
// Promises are leases, which expire after LeaseTime, and active entries, which
// last until [Ledger.End]. A Ledger is safe for concurrent use, does no I/O and
// has no clock: time is passed in. Times older than one seen before count as
// that one.
type Ledger struct {
	self peer.ID

	mu       sync.Mutex
	limits   Limits
	now      time.Time
	load     Load
	draining bool
	cpu      capacity.Hysteresis
	cpuFull  bool      // by cpu, as last observed
	late     time.Time // until when lateAt counts; zero: the node never was late
	lateAt   int64     // packets/s in use when it was late last
	stress   capacity.Hysteresis
	leases   map[leaseKey]*entry
	from     map[peer.ID]*nodeLeases // leases by holder
	pending  list.List               // of *entry: leases, soonest to expire first
	active   map[string]*entry
	settling list.List      // of *entry: active ones, soonest to settle first
	streams  map[string]int // entries and leases by stream
	promised Load           // Uplink and Packets of pending and settling
	leased   int            // leases that count as sessions
	count    [capacity.Cascade + 1]int
	decided  Counts
}

type leaseKey struct {
	from peer.ID
	id   string
}

// entry is a lease or, once claimed, an active entry.
type entry struct {
	lease  capacity.Lease
	settle time.Time     // when an active entry stops being counted as promised
	in     *list.Element // in pending or settling; nil once settled
}

// nodeLeases sums up the leases that one node holds.
type nodeLeases struct {
	leases, sessions int
	needs            Load // Uplink and Packets
	streams          map[string]int
}

func (s *nodeLeases) add(need capacity.Need, n int) {
	s.leases += n
	if need.Purpose != capacity.Cascade {
		s.sessions += n
	}
	s.needs.add(need, n)
	count(s.streams, need.Stream, n)
}

// New returns a ledger of the node self, without promises.
func New(self peer.ID, limits Limits) *Ledger {
	return &Ledger{
		self:    self,
		limits:  limits,
		leases:  map[leaseKey]*entry{},
		from:    map[peer.ID]*nodeLeases{},
		active:  map[string]*entry{},
		streams: map[string]int{},
		stress:  capacity.Hysteresis{Free: roomAt},
		decided: Counts{Refused: map[string]uint64{}},
	}
}

// SetLimits replaces the limits from now on. Existing promises stay: if they
// exceed a new limit, nothing is added until enough have ended.
func (l *Ledger) SetLimits(limits Limits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.limits = limits
}

// Observe takes the load measured at now.
func (l *Ledger) Observe(now time.Time, load Load) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	l.load = load
	if l.idle() {
		l.cpuFull = l.cpu.Next(0)
		return
	}
	l.cpuFull = l.cpu.Next(load.cpu())
	if load.DelayLimit > 0 && load.Delay >= load.DelayLimit {
		l.late, l.lateAt = l.now.Add(LateTime), load.Packets
	}
}

// SetDraining sets whether everything but cascades is refused.
func (l *Ledger) SetDraining(draining bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.draining = draining
}

// Reserve promises room for the requested need until LeaseTime from now. A
// request that was granted already, and is neither expired nor claimed, gets
// the same lease again.
//
// The error is a [*capacity.Refusal]. Its reason is "draining", or the
// exhausted resource: "sessions", "uplink", "packets", "cpu",
// "delay" or "streams";
// "share" if the node would hold more than its share; "leases" if too many are
// held; "claimed" if the lease was used up; or "malformed".
func (l *Ledger) Reserve(now time.Time, req capacity.Request) (capacity.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := req.Check(); err != nil {
		return capacity.Lease{}, l.no(&capacity.Refusal{Reason: "malformed", Detail: err.Error()})
	}
	l.advance(now)
	key := leaseKey{req.From, req.ID}
	if e := l.leases[key]; e != nil {
		if e.lease.Need != req.Need {
			return capacity.Lease{}, l.no(&capacity.Refusal{Reason: "malformed", Detail: "the request ID is in use for another need"})
		}
		return e.lease, nil
	}
	if e := l.active[req.ID]; e != nil {
		return capacity.Lease{}, l.no(&capacity.Refusal{Reason: "claimed", Detail: "the request ID is that of an active session"})
	}
	held := l.from[req.From]
	if held == nil {
		held = &nodeLeases{streams: map[string]int{}}
	}
	if held.leases >= maxLeasesFrom {
		return capacity.Lease{}, l.no(refusal("leases", "%d leases held by one node", held.leases))
	}
	if n := len(l.leases); n >= maxLeases {
		return capacity.Lease{}, l.no(refusal("leases", "%d leases held", n))
	}
	if r := l.refuse(req.Need); r != nil {
		return capacity.Lease{}, l.no(r)
	}
	if r := l.beyondShare(held, req); r != nil {
		return capacity.Lease{}, l.no(r)
	}
	e := &entry{lease: capacity.Lease{ID: req.ID, Target: l.self, From: req.From, Need: req.Need, Expires: l.now.Add(capacity.LeaseTime)}}
	e.in = l.pending.PushBack(e)
	l.leases[key] = e
	l.from[req.From] = held
	held.add(req.Need, 1)
	if req.Need.Purpose != capacity.Cascade {
		l.leased++
	}
	l.promise(req.Need, 1)
	l.enter(req.Need.Stream, 1)
	l.decided.Leases++
	return e.lease, nil
}

// Claim turns the lease of from with ID id into an active entry of that ID. The
// error is [ErrNoLease].
func (l *Ledger) Claim(now time.Time, from peer.ID, id string) (capacity.Lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance(now)
	e := l.leases[leaseKey{from, id}]
	if e == nil || l.active[id] != nil {
		return capacity.Lease{}, ErrNoLease
	}
	l.drop(e)
	l.start(e)
	return e.lease, nil
}

// Admit makes an active entry for a client without a lease, if there is room.
// The error is a [*capacity.Refusal] as from [Ledger.Reserve]. Admitting an
// active ID again changes nothing.
func (l *Ledger) Admit(now time.Time, id string, need capacity.Need) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := need.Check(); err != nil {
		return l.no(&capacity.Refusal{Reason: "malformed", Detail: err.Error()})
	}
	l.advance(now)
	if l.active[id] != nil {
		return nil
	}
	if r := l.refuse(need); r != nil {
		return l.no(r)
	}
	l.start(&entry{lease: capacity.Lease{ID: id, Target: l.self, Need: need}})
	l.decided.Entries++
	return nil
}

// End frees the room of the active entry id. An unknown id is ignored.
func (l *Ledger) End(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.active[id]
	if e == nil {
		return
	}
	delete(l.active, id)
	l.count[e.lease.Need.Purpose]--
	l.enter(e.lease.Need.Stream, -1)
	if e.in != nil {
		l.settling.Remove(e.in)
		l.promise(e.lease.Need, -1)
	}
}

// Release gives a lease back. An unknown, expired or claimed one is ignored.
func (l *Ledger) Release(from peer.ID, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.leases[leaseKey{from, id}]; e != nil {
		l.drop(e)
	}
}

// no counts a refusal and returns it. Called with mu held.
func (l *Ledger) no(r *capacity.Refusal) error {
	l.decided.Refused[r.Reason]++
	return r
}

// refuse returns why there is no room for need, or nil. Called with mu held.
func (l *Ledger) refuse(need capacity.Need) *capacity.Refusal {
	cascade := need.Purpose == capacity.Cascade
	keep := int64(cascadePart)
	if cascade {
		keep = math.MaxInt64
	}
	if l.draining && !cascade {
		return &capacity.Refusal{Reason: "draining", Detail: "the node takes nothing new"}
	}
	if used := l.sessions(); !cascade && l.limits.Sessions > 0 && used >= l.limits.Sessions {
		return refusal("sessions", "%d of %d sessions in use, %d of them reserved", used, l.limits.Sessions, l.leased)
	}
	if r := lacks("uplink", "bit/s", l.load.Uplink, l.promised.Uplink, need.Uplink, l.limits.Uplink, keep); r != nil {
		return r
	}
	if r := lacks("packets", "packets/s", l.load.Packets, l.promised.Packets, need.Packets, l.limits.Packets, keep); r != nil {
		return r
	}
	if cpu := l.load.cpu(); cascade && cpu >= 1 && !l.idle() || !cascade && l.busy() {
		return refusal("cpu", "%.0f %% of the CPU limit in use", 100*cpu)
	}
	if use := l.load.Packets + l.promised.Packets; !cascade && l.isLate() && float64(use)+float64(need.Packets) >= lateRoom*float64(l.lateAt) {
		return refusal("delay", "at %d packets/s they were too late, and no more than %.0f %% of that is taken for %v; now they are %v late",
			l.lateAt, 100*lateRoom, LateTime, l.load.Delay.Round(time.Millisecond))
	}
	if n := len(l.streams); l.limits.Streams > 0 && n >= l.limits.Streams && need.Stream != "" && l.streams[need.Stream] == 0 {
		return refusal("streams", "%d of %d streams in use", n, l.limits.Streams)
	}
	return nil
}

// beyondShare returns why a node with those leases may not have the requested
// one as well, or nil. Called with mu held.
func (l *Ledger) beyondShare(held *nodeLeases, req capacity.Request) *capacity.Refusal {
	share := l.limits.Share
	if share.Part == 0 || req.From == l.self {
		return nil
	}
	need := req.Need
	beyond := func(what string, held, more, limit, least int64) *capacity.Refusal {
		most := max(limit/int64(share.Part), least)
		if limit <= 0 || more == 0 || float64(held)+float64(more) <= float64(most) {
			return nil
		}
		return refusal("share", "%d %s more, beside %d held by leases of the same node that are not used yet: at most %d of %d for one node", more, what, held, most, limit)
	}
	sessions, streams := int64(0), int64(0)
	if need.Purpose != capacity.Cascade {
		sessions = 1
	}
	if need.Stream != "" && held.streams[need.Stream] == 0 {
		streams = 1
	}
	return cmp.Or(
		beyond("sessions", int64(held.sessions), sessions, int64(l.limits.Sessions), 1),
		beyond("bit/s", held.needs.Uplink, need.Uplink, l.limits.Uplink, share.Uplink),
		beyond("packets/s", held.needs.Packets, need.Packets, l.limits.Packets, share.Packets),
		beyond("streams", int64(len(held.streams)), streams, int64(l.limits.Streams), 1),
	)
}

// lacks returns why need more does not fit under limit less one part in keep of
// it, or nil.
func lacks(reason, unit string, measured, promised, need, limit, keep int64) *capacity.Refusal {
	most := limit - limit/keep
	if limit <= 0 || float64(measured)+float64(promised)+float64(need) <= float64(most) { // no sum of these wraps around
		return nil
	}
	return refusal(reason, "%d of %d %s in use and %d promised: no room for %d more", measured, most, unit, promised, need)
}

func refusal(reason, format string, args ...any) *capacity.Refusal {
	return &capacity.Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...), RetryAfter: retryAfter}
}

// cpu is the share of the CPU limit in use.
func (l Load) cpu() float64 {
	if l.CPULimit <= 0 || math.IsNaN(l.CPU) {
		return 0
	}
	return l.CPU / l.CPULimit
}

// The methods below are called with mu held.

// sessions counts active and leased sessions.
func (l *Ledger) sessions() int { return l.count[capacity.View] + l.count[capacity.Publish] + l.leased }

// idle reports whether there are neither active entries nor leases.
func (l *Ledger) idle() bool { return len(l.active)+len(l.leases) == 0 }

// busy reports whether the CPU is full. An idle node's does not count: it could
// end nothing to free it, and a node that refuses its first client because of
// the machine's other load would never have one.
func (l *Ledger) busy() bool { return l.cpuFull && !l.idle() }

// isLate reports whether the node was late within LateTime. An idle one's delay
// does not count either.
func (l *Ledger) isLate() bool { return l.now.Before(l.late) && !l.idle() }

// advance takes the time, and ends expired leases.
func (l *Ledger) advance(now time.Time) {
	if now.After(l.now) {
		l.now = now
	}
	for el := l.pending.Front(); el != nil; el = l.pending.Front() {
		e := el.Value.(*entry)
		if l.now.Before(e.lease.Expires) {
			break
		}
		l.drop(e)
	}
	for el := l.settling.Front(); el != nil; el = l.settling.Front() {
		e := el.Value.(*entry)
		if l.now.Before(e.settle) {
			break
		}
		l.settling.Remove(el)
		e.in = nil
		l.promise(e.lease.Need, -1)
	}
}

// drop removes a lease.
func (l *Ledger) drop(e *entry) {
	from := e.lease.From
	delete(l.leases, leaseKey{from, e.lease.ID})
	held := l.from[from]
	if held.add(e.lease.Need, -1); held.leases == 0 {
		delete(l.from, from)
	}
	if e.lease.Need.Purpose != capacity.Cascade {
		l.leased--
	}
	l.pending.Remove(e.in)
	e.in = nil
	l.promise(e.lease.Need, -1)
	l.enter(e.lease.Need.Stream, -1)
}

// start makes e an active entry.
func (l *Ledger) start(e *entry) {
	l.active[e.lease.ID] = e
	l.count[e.lease.Need.Purpose]++
	l.enter(e.lease.Need.Stream, 1)
	e.settle = l.now.Add(SettleTime)
	e.in = l.settling.PushBack(e)
	l.promise(e.lease.Need, 1)
}

func (l *Ledger) promise(need capacity.Need, n int) { l.promised.add(need, n) }

func (l *Ledger) enter(stream string, n int) { count(l.streams, stream, n) }

// add counts need n more times.
func (l *Load) add(need capacity.Need, n int) {
	l.Uplink += int64(n) * need.Uplink
	l.Packets += int64(n) * need.Packets
}

// count counts stream n more times, if there is one.
func count(streams map[string]int, stream string, n int) {
	if stream == "" {
		return
	}
	if streams[stream] += n; streams[stream] == 0 {
		delete(streams, stream)
	}
}
