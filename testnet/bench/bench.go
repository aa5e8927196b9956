// Package bench measures the built binary: nodes are processes of their own,
// media and clients are real, and every figure is one that a client or an
// operator could read.
package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"time"

	"weir/capacity"
	"weir/sfu/client"
	"weir/testnet"
)

// Config is the configuration of [Cascade]. The zero value of an optional field
// means the default in its comment.
type Config struct {
	Binary string // of weir
	Dir    string // for the nodes' data; must exist

	Nodes    []int         // sizes of the networks, at least 3 each; default 5 and 20
	Samples  int           // of each separate measurement; default 30
	Hop      time.Duration // duration of the measurement of a hop; default 10 s
	Idle     time.Duration // duration of the measurement of discovery's upkeep; default 20 s
	Sessions int           // opened and closed; default 500
	Log      *slog.Logger  // progress; default: discarded
}

// Check fills in the defaults. The error says which field is wrong.
func (c *Config) Check() error {
	if len(c.Nodes) == 0 {
		c.Nodes = []int{5, 20}
	}
	for _, n := range c.Nodes {
		if n < 3 || n > 100 {
			return fmt.Errorf("a network of %d nodes: 3 to 100 are possible on one machine", n)
		}
	}
	if c.Samples == 0 {
		c.Samples = 30
	}
	if c.Hop == 0 {
		c.Hop = 10 * time.Second
	}
	if c.Idle == 0 {
		c.Idle = 20 * time.Second
	}
	if c.Sessions == 0 {
		c.Sessions = 500
	}
	if c.Samples < 1 || c.Hop < 0 || c.Idle < 0 || c.Sessions < 1 {
		return errors.New("samples and sessions must be at least 1, times not negative")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Report is the result of [Cascade]. Times are in milliseconds.
type Report struct {
	Release  string    `json:"release"`
	Go       string    `json:"go"`
	CPUs     int       `json:"cpus"` // shared by all nodes, the publisher and the viewers
	Began    time.Time `json:"began"`
	Elapsed  float64   `json:"elapsed_ms"`
	Networks []Network `json:"networks"`
}

// Network is the result for a network of one size. Figures that do not depend
// on the size are measured in the first only, and nil in others.
type Network struct {
	Nodes      int          `json:"nodes"`
	Up         float64      `json:"up_ms"` // until all see each other's records
	FirstFrame []FirstFrame `json:"first_frame"`
	Hop        *Hop         `json:"hop,omitempty"`
	Selections []Selection  `json:"selections"`
	Age        Spread       `json:"record_age_ms"` // of the chosen nodes' records, when they were used
	Upkeep     Upkeep       `json:"upkeep"`
	Sessions   *Sessions    `json:"sessions,omitempty"`
}

// lingers is how long the nodes keep a relayed stream without viewers: short,
// so that many first viewers can be measured. Links are kept for the usual
// time.
const lingers = 50 * time.Millisecond

// fullAt is the session limit of the last node, which is to be full.
const fullAt = 2

// Cascade starts networks of weir nodes on loopback and measures them.
func Cascade(ctx context.Context, cfg Config) (*Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	report := &Report{Go: runtime.Version(), CPUs: runtime.NumCPU(), Began: time.Now()}
	for i, size := range cfg.Nodes {
		found, release, err := measureNetwork(ctx, cfg, i, size)
		if err != nil {
			return nil, fmt.Errorf("network of %d nodes: %w", size, err)
		}
		report.Networks = append(report.Networks, found)
		report.Release = release
	}
	report.Elapsed = capacity.Milliseconds(time.Since(report.Began))
	return report, nil
}

// A trial is one network while it is measured.
type trial struct {
	cfg   Config
	nodes []node
	clip  *client.Source
}

// measureNetwork starts a network and measures it. Figures that do not depend
// on the number of nodes are measured in the first network only.
func measureNetwork(ctx context.Context, cfg Config, index, size int) (found Network, release string, err error) {
	log := cfg.Log.With("nodes", size)
	log.Info("starting the network")
	began := time.Now()
	net, err := testnet.Up(ctx, testnet.Config{
		Dir: filepath.Join(cfg.Dir, fmt.Sprintf("%d-nodes-%d", size, index)), N: size, Binary: cfg.Binary,
		NodeFlags: func(i int) []string {
			flags := []string{"--linger", lingers.String(), "--log-level", "warn"}
			if i == size {
				flags = append(flags, "--session-limit", fmt.Sprint(fullAt))
			}
			return flags
		},
	})
	if err != nil {
		return found, "", err
	}
	defer func() {
		if e := net.Close(); err == nil {
			err = e
		}
	}()
	found = Network{Nodes: size, Up: capacity.Milliseconds(time.Since(began))}
	t := &trial{cfg: cfg, clip: client.Pattern()}
	for _, n := range net.Nodes() {
		t.nodes = append(t.nodes, node{n})
	}
	a, b := t.nodes[0], t.nodes[1]
	s, err := a.status(ctx)
	if err != nil {
		return found, "", err
	}

	var steps []step
	add := func(what string, f func() error) { steps = append(steps, step{what, f}) }
	frames := func(f func() (FirstFrame, error)) func() error {
		return func() error {
			got, err := f()
			found.FirstFrame = append(found.FirstFrame, got)
			return err
		}
	}
	if index == 0 {
		add("sessions opened and closed", func() (err error) { found.Sessions, err = t.sessions(ctx, a, b); return err })
		add("first frame at the origin", frames(func() (FirstFrame, error) { return t.direct(ctx, a) }))
		add("first frame over an existing link", func() error {
			pulled, carried, err := t.existingLink(ctx, a, b)
			found.FirstFrame = append(found.FirstFrame, carried, pulled)
			return err
		})
		add("latency of a hop", func() (err error) { found.Hop, err = t.hop(ctx, a, b); return err })
	}
	add("first frame over new links", frames(func() (FirstFrame, error) { return t.newLinks(ctx) }))
	add("selections", func() (err error) { found.Selections, found.Age, err = t.selections(ctx); return err })
	add("all at rest", func() error { return t.atRest(ctx) })
	add("discovery's upkeep", func() (err error) { found.Upkeep, err = t.upkeep(ctx); return err })
	for _, step := range steps {
		log.Info("measuring", "what", step.what)
		if err := step.run(); err != nil {
			return found, "", fmt.Errorf("%s: %w", step.what, err)
		}
	}
	return found, s.Release, nil
}

type step struct {
	what string
	run  func() error
}

// atRest waits until no node has a link or a stream.
func (t *trial) atRest(ctx context.Context) error {
	for _, n := range t.nodes {
		err := until(ctx, n.Name+" carries nothing", func() (bool, error) {
			s, err := n.status(ctx)
			return s.Links == 0 && s.Streams == 0, err
		})
		if err != nil {
			return err
		}
	}
	return nil
}
