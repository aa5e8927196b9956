package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"weir/capacity"
	"weir/capacity/task"
	"weir/dht"
)

// selectionPatience is how long a seeker waits for a placement before it counts
// as failed.
const selectionPatience = 5 * time.Second

// A made is a finished selection.
type made struct {
	at       time.Time // begun
	elapsed  time.Duration
	chosen   int // index; -1: none
	err      error
	messages int
	bytes    int64
	age      time.Duration // of the record that decided; 0: unknown
	believed float64       // stress; NaN: unknown
	refused  bool          // by one of the first two
	insight
}

// run makes the plan's selections for d, and waits for the last.
func (c *contest) run(ctx context.Context, p *plan, d time.Duration) ([]made, error) {
	var (
		mu  sync.Mutex
		all []made
		wg  sync.WaitGroup
	)
	defer wg.Wait()
	end := time.Now().Add(d)
	rnd := rand.New(rand.NewPCG(c.cfg.Seed^0x64726177, 0))
	for next := time.Now(); ; {
		t := p.next()
		next = next.Add(t.after)
		if next.After(end) {
			break
		}
		if err := task.Sleep(ctx, time.Until(next)); err != nil {
			return nil, err
		}
		for c.nodes[t.seeker].Dead() {
			t.seeker = (t.seeker + 1) % len(c.nodes)
		}
		in := c.truth.look(c.nodes[t.seeker], t.need, rnd)
		in.seeker = t.seeker
		wg.Go(func() {
			m := c.selectOne(ctx, t, in)
			mu.Lock()
			all = append(all, m)
			mu.Unlock()
		})
	}
	wg.Wait()
	return all, ctx.Err()
}

// selectOne makes one selection, and ends the session in time.
func (c *contest) selectOne(ctx context.Context, t planned, in insight) made {
	seeker := c.nodes[t.seeker]
	m := made{at: time.Now(), chosen: -1, believed: math.NaN(), insight: in}
	ctx, cancel := context.WithTimeout(ctx, selectionPatience)
	defer cancel()
	var placed dht.Placed
	var d dht.Decision
	if c.redis != nil {
		sealed, cost, err := c.redis.read(ctx, seeker)
		m.messages, m.bytes, m.err = 2, cost, err
		if err == nil {
			placed, d, m.err = seeker.Seeker.PlaceAmong(ctx, dht.CapacityTopic(), t.need, sealed, nil)
		}
	} else {
		placed, d, m.err = seeker.Seeker.Place(ctx, dht.CapacityTopic(), t.need, nil)
	}
	m.elapsed = time.Since(m.at)
	m.messages += d.Messages
	m.bytes += d.Bytes
	for i, r := range d.Reservations {
		m.refused = m.refused || i < 2 && refusedByLedger(r.Reason)
	}
	if m.err != nil {
		return m
	}
	for _, n := range c.nodes {
		if n.ID() == d.Chosen {
			m.chosen = n.Index
			time.AfterFunc(t.stay, func() { n.Ledger.Release(seeker.ID(), placed.Lease.ID) })
		}
	}
	decided := d.Time.Add(time.Duration(d.FindMillis * float64(time.Millisecond)))
	for _, v := range d.Verdicts {
		if v.Node == d.Chosen {
			// A sequence number is the time of its creation, by a clock that
			// all nodes share here.
			m.age = decided.Sub(time.UnixMilli(int64(v.Seq)))
			m.believed = v.Stress
		}
	}
	return m
}

// refusedByLedger reports whether the reason of a reservation is a refusal, not
// an answer that was missing or not waited for.
func refusedByLedger(reason string) bool {
	switch reason {
	case "", "abandoned", "unreachable", "unproven":
		return false
	}
	return true
}

// failed reports whether the selection failed though there was room.
func (m *made) failed() bool { return m.err != nil && !m.noRoom() }

// noRoom reports whether there was no node to choose, which is no failure.
func (m *made) noRoom() bool {
	var refusal *capacity.Refusal
	return math.IsNaN(m.best) && (m.err == nil || errors.As(m.err, &refusal))
}

// tell counts err by the start of its text: a refusal's reason, or the text up
// to the first detail.
func tell(counts map[string]int, err error) map[string]int {
	if counts == nil {
		counts = make(map[string]int)
	}
	reason, _, _ := strings.Cut(err.Error(), ":")
	var refusal *capacity.Refusal
	switch {
	case errors.As(err, &refusal):
		reason = "refused: " + refusal.Reason
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		reason = "no answer in time"
	}
	counts[reason]++
	return counts
}

func summarise(all []made) DiscoverySelections {
	var s DiscoverySelections
	var messages, bytes, times, ages, regrets, errs []float64
	var drawn, random float64
	refused := 0
	for _, m := range all {
		if m.noRoom() {
			s.NoRoom++
			continue
		}
		s.N++
		if m.refused {
			refused++
		}
		messages = append(messages, float64(m.messages))
		bytes = append(bytes, float64(m.bytes))
		if m.failed() {
			s.Failed++
			s.Failures = tell(s.Failures, m.err)
			continue
		}
		times = append(times, capacity.Milliseconds(m.elapsed))
		ages = append(ages, max(0, capacity.Milliseconds(m.age)))
		if !math.IsNaN(m.best) {
			regrets = append(regrets, max(0, m.best-m.scores[m.chosen]))
			drawn += m.drawn
			random += m.random
		}
		if !math.IsNaN(m.believed) {
			errs = append(errs, math.Abs(m.believed-m.stress[m.chosen]))
		}
	}
	s.Messages, s.Bytes, s.Time, s.Age = spreadOf(messages), spreadOf(bytes), spreadOf(times), spreadOf(ages)
	s.Regret, s.StressError = spreadOf(regrets), spreadOf(errs)
	if n := float64(len(regrets)); n > 0 {
		s.RegretKnowing, s.RegretRandom = drawn/n, random/n
	}
	if s.N > 0 {
		s.FirstRefused = float64(refused) / float64(s.N)
	}
	return s
}

// mourn summarizes the selections after the node victim died; -1: it could not
// be chosen.
func mourn(all []made, died time.Time, victim int) DiscoveryDeath {
	var d DiscoveryDeath
	var times []float64
	var lastGood, lastBad time.Duration = -1, -1
	for _, m := range all {
		if m.noRoom() {
			continue
		}
		d.N++
		at := m.at.Sub(died)
		d.Watched = max(d.Watched, capacity.Milliseconds(at))
		if m.failed() {
			d.Failed++
			d.Failures = tell(d.Failures, m.err)
			lastBad = max(lastBad, at)
			continue
		}
		if m.chosen == victim && victim >= 0 {
			d.Stranded++
		}
		lastGood = max(lastGood, at)
		times = append(times, capacity.Milliseconds(m.elapsed))
	}
	d.Recovered = lastGood > lastBad
	d.Recovery = max(0, capacity.Milliseconds(lastBad))
	d.Time = spreadOf(times)
	return d
}

// A reading is the traffic of all nodes' interfaces since they started, or
// since another reading.
type reading struct {
	at      time.Time
	seconds float64
	sent    float64 // records' stream payload sent by all
	rows    []readingRow
}

type readingRow struct {
	name                   string
	publishes              bool
	records, routing, wire float64 // bytes, in and out
}

// meter reads everything: nodes first, in their order, then brokers and redis.
func (c *contest) meter() reading {
	r := reading{at: time.Now()}
	for _, n := range append(c.lab.Nodes(), c.lab.Brokers()...) {
		row := readingRow{name: fmt.Sprintf("node %d", n.Index), publishes: n.Index >= 0, wire: float64(n.Wire().Bytes())}
		if n.Index < 0 {
			row.name = fmt.Sprintf("broker %d", -n.Index)
		}
		for _, t := range n.Overlay.Traffic.List() {
			sum := float64(t.BytesIn + t.BytesOut)
			if isRecords(t.Protocol) {
				r.sent += float64(t.BytesOut)
				row.records += sum
			} else {
				row.routing += sum
			}
		}
		if c.redis != nil {
			payload, wire := c.redis.traffic(n.Index)
			row.records += payload
			row.wire += wire
		}
		r.rows = append(r.rows, row)
	}
	if c.redis != nil {
		payload, wire := c.redis.traffic(redisItself)
		r.sent += payload
		r.rows = append(r.rows, readingRow{name: "redis", records: payload, wire: wire})
	}
	return r
}

// isRecords reports whether a protocol carries records, queries and reservations.
func isRecords(protocol string) bool {
	return strings.HasPrefix(protocol, "/weir/") && (strings.Contains(protocol, "/records/") || strings.Contains(protocol, "/reserve/"))
}

func (r reading) since(before reading) reading {
	r.seconds = r.at.Sub(before.at).Seconds()
	r.sent -= before.sent
	for i := range r.rows {
		r.rows[i].records -= before.rows[i].records
		r.rows[i].routing -= before.rows[i].routing
		r.rows[i].wire -= before.rows[i].wire
	}
	return r
}

func (r reading) upkeep() DiscoveryUpkeep {
	load := func(of func(readingRow) float64) (l DiscoveryLoad) {
		n := 0.0
		for _, row := range r.rows {
			rate := of(row) / r.seconds
			l.Busiest = max(l.Busiest, rate)
			if row.publishes {
				l.Mean += rate
				n++
			}
		}
		l.Mean /= n
		return l
	}
	return DiscoveryUpkeep{
		Records: load(func(r readingRow) float64 { return r.records }),
		Routing: load(func(r readingRow) float64 { return r.routing }),
		Wire:    load(func(r readingRow) float64 { return r.wire }),
	}
}

// busiest returns the name of the node, or broker if there are any, that
// carries the most records, and how to kill it. The victim is its index if it
// is a node that can be chosen, else -1.
func (c *contest) busiest(r reading) (who string, victim int, kill func()) {
	most := 0
	brokers := len(c.lab.Brokers()) > 0
	for i, row := range r.rows {
		if brokers && row.publishes {
			continue
		}
		if row.records > r.rows[most].records || brokers && r.rows[most].publishes {
			most = i
		}
	}
	all := append(c.lab.Nodes(), c.lab.Brokers()...)
	if most >= len(all) {
		return "redis", -1, c.redis.kill
	}
	n := all[most]
	if n.Index < 0 {
		return r.rows[most].name, -1, n.Kill
	}
	return r.rows[most].name, n.Index, n.Kill
}
