package metrics

import (
	"errors"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"weir/capacity"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/capacity/policy"
	"weir/capacity/scope"
	"weir/dht"
	"weir/dht/scale"
	"weir/sfu/problem"
	"weir/sfu/rights"
)

const (
	// mostRules bounds the rule names that become label values, over all
	// policies in force since the node began.
	mostRules = 128
	// mostRejected bounds what one decision adds for a rule: the number of
	// rejected candidates is a holder's unverified claim.
	mostRejected = 4096
	// otherWord is the label value of every word that is not counted by name.
	otherWord = "other"
)

// Counters count the outcomes of placements, and their reasons.
type Counters struct {
	words        words
	placements   *prometheus.CounterVec
	rejected     *prometheus.CounterVec
	reservations *prometheus.CounterVec
	refusals     *prometheus.CounterVec
	Times        *times
	Tallies      *tallies
}

// New returns counters that are 0. inForce is the policy in force.
func New(inForce func() *policy.Compiled) *Counters {
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "weir", Name: name, Help: help}, labels)
	}
	return &Counters{
		words:        words{policy: inForce, known: knownWords(), rules: make(map[string]bool)},
		placements:   vector("placements_total", "Placements among the nodes with a stream, or all nodes, by outcome: placed, refused, not_known (too few holders answered) or failed.", "purpose", "among", "outcome"),
		rejected:     vector("candidates_rejected_total", "Candidates that a rule of the policy rejected in placements, at this node or at a holder.", "by", "rule"),
		reservations: vector("reservations_total", "Reservations requested from candidates, by outcome: granted, or the reason of the refusal; abandoned: another candidate was faster.", "outcome"),
		Times:        newTimes(), Tallies: newTallies(),
		refusals: vector("client_refusals_total", "Clients refused, by reason: the resource that the node or most candidates lack, or the fault of their offer.", "reason"),
	}
}

func (c *Counters) Register(reg *prometheus.Registry) {
	reg.MustRegister(c.placements, c.rejected, c.reservations, c.refusals)
	reg.MustRegister(c.Times.collectors()...)
	reg.MustRegister(c.Tallies.collectors()...)
}

// Decided counts a placement that ended with err.
func (c *Counters) Decided(d dht.Decision, err error) {
	among := "carriers"
	if d.Topic == dht.CapacityTopic() {
		among = "nodes"
	}
	outcome := "failed"
	var refused *capacity.Refusal
	switch {
	case err == nil:
		outcome = "placed"
	case errors.As(err, &refused):
		outcome = "refused"
	case errors.Is(err, dht.ErrUnanswered):
		outcome = "not_known"
	}
	c.Times.decided(among, d)
	c.placements.WithLabelValues(d.Need.Purpose.String(), among, outcome).Inc()
	for _, v := range d.Verdicts {
		if v.Rule != "" {
			c.rejected.WithLabelValues("seeker", c.words.label(v.Rule)).Inc()
		}
	}
	for rule, count := range d.Rejected {
		c.rejected.WithLabelValues("holder", c.words.label(rule)).Add(float64(max(0, min(count, mostRejected))))
	}
	for _, r := range d.Reservations {
		outcome := "granted"
		if r.Lease == "" {
			outcome = c.words.label(r.Reason)
		}
		c.reservations.WithLabelValues(outcome).Inc()
	}
}

// Event counts what e reports.
func (c *Counters) Event(e event.Event) {
	if e.Kind == event.Refused {
		c.refused(e.Reason)
	}
	c.Tallies.add(e, c.Times)
}

// refused counts a client that was refused.
func (c *Counters) refused(reason string) {
	c.refusals.WithLabelValues(c.words.label(reason)).Inc()
}

// words keep label values to a bounded set: many of them come from peers.
type words struct {
	policy func() *policy.Compiled
	known  map[string]bool // read only

	mu    sync.Mutex
	rules map[string]bool // other names of rules, mostRules at most
}

// knownWords are the reasons that weir itself gives: those of ledgers, of
// placements, of cascade links and of provisioning.
func knownWords() map[string]bool {
	known := make(map[string]bool)
	for _, code := range problem.Codes() {
		known[string(code)] = true
	}
	for _, list := range [][]string{
		ledger.Reasons(),
		{dht.NoCandidates, "unreachable", "unproven", "abandoned", "gone", "closed", "busy", "address", "error"},
		{"not-here", "loop", "depth", "fanout", "pull", "slots", "pulls"},
		{scale.ProvisioningFailed, scale.ProvisioningTimedOut, scale.ProvisioningMaxNodes, scale.ProvisioningCooldown, scale.ProvisioningWouldNotHelp, scale.ProvisioningRoom, scale.ProvisioningUnknown, "provisioner-unreachable"},
		{"score", "tickets"}, // the unnamed rule, and a helper that does not trust this node's tickets
	} {
		for _, w := range list {
			known[w] = true
		}
	}
	for _, r := range rights.Reasons() {
		known[string(r)] = true
	}
	return known
}

// label is the word for s, fit for the value of a label.
func (w *words) label(s string) string { return Snake(w.word(s)) }

// word returns s if it is one of weir's own words, or the name of a rule of the
// policy in force and there is room for it; otherwise otherWord.
func (w *words) word(s string) string {
	if w.known[s] {
		return s
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.rules[s] {
		isRule := func(r policy.Rule) bool { return r.Name == s }
		if len(w.rules) >= mostRules || !slices.ContainsFunc(w.policy().Policy().Filter, isRule) {
			return otherWord
		}
		w.rules[s] = true
	}
	return s
}

// Gate exports the counts of addresses and URLs that the gate refused:
// they were not dialled, given to clients or checked.
type Gate struct{ Gate *scope.Gate }

var addressesDesc = prometheus.NewDesc("weir_addresses_refused_total", "Addresses from other nodes that were not used, by use (dial, redirect, candidate) and kind.", []string{"use", "kind"}, nil)

// Describe implements prometheus.Collector.
func (c Gate) Describe(ch chan<- *prometheus.Desc) { ch <- addressesDesc }

// Collect implements prometheus.Collector.
func (c Gate) Collect(ch chan<- prometheus.Metric) {
	for r, n := range c.Gate.Refused() {
		ch <- prometheus.MustNewConstMetric(addressesDesc, prometheus.CounterValue, float64(n), Snake(string(r.Use)), Snake(string(r.Kind)))
	}
}

// Ledger exports the decisions of the node's own ledger.
type Ledger struct{ Ledger *ledger.Ledger }

var (
	grantsDesc   = prometheus.NewDesc("weir_ledger_grants_total", "Grants of this node's ledger: leases to other nodes, and entries of clients and pulls without a lease.", []string{"kind"}, nil)
	refusalsDesc = prometheus.NewDesc("weir_ledger_refusals_total", "Refusals of this node's ledger, by reason.", []string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (c Ledger) Describe(ch chan<- *prometheus.Desc) {
	ch <- grantsDesc
	ch <- refusalsDesc
}

// Collect implements prometheus.Collector.
func (c Ledger) Collect(ch chan<- prometheus.Metric) {
	d := c.Ledger.Decided()
	count := func(desc *prometheus.Desc, n uint64, label string) {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n), label)
	}
	count(grantsDesc, d.Leases, "lease")
	count(grantsDesc, d.Entries, "entry")
	for _, reason := range ledger.Reasons() {
		count(refusalsDesc, d.Refused[reason], Snake(reason))
	}
}
