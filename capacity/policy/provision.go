package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"weir/capacity"
)

// Provision says when nodes are started and released. A zero field means the
// default in its comment; durations are by the provisioner's clock, in whole
// milliseconds.
type Provision struct {
	Cooldown    time.Duration `yaml:"cooldown,omitempty"`     // least time between two starts, and between two releases, in a region; 0: 30 s
	WaitTimeout time.Duration `yaml:"wait_timeout,omitempty"` // how long a request waits for the new node; 0: 8 s, at most MaxWaitTimeout
	MaxNodes    int           `yaml:"max_nodes,omitempty"`    // nodes in a region from which on none is started; 0: 64
	IdleTimeout time.Duration `yaml:"idle_timeout,omitempty"` // how long a node has been idle before it is released, under BinPack; 0: 5 min
	MinNodes    int           `yaml:"min_nodes,omitempty"`    // nodes in a region that are never released; 0: 1
}

// MaxWaitTimeout bounds [Provision.WaitTimeout]: clients give up after about
// that.
const MaxWaitTimeout = 30 * time.Second

// OrDefault is p with the defaults in the place of zero fields.
func (p Provision) OrDefault() Provision {
	return Provision{
		Cooldown:    cmp.Or(p.Cooldown, 30*time.Second),
		WaitTimeout: cmp.Or(p.WaitTimeout, 8*time.Second),
		MaxNodes:    cmp.Or(p.MaxNodes, 64),
		IdleTimeout: cmp.Or(p.IdleTimeout, 5*time.Minute),
		MinNodes:    cmp.Or(p.MinNodes, 1),
	}
}

func (p Provision) check() error {
	for _, d := range []struct {
		field string
		d     time.Duration
		most  time.Duration
	}{{"cooldown", p.Cooldown, 24 * time.Hour}, {"wait_timeout", p.WaitTimeout, MaxWaitTimeout}, {"idle_timeout", p.IdleTimeout, 24 * time.Hour}} {
		if d.d < 0 || d.d > d.most || d.d%time.Millisecond != 0 {
			return fmt.Errorf("policy: provision: %s %v: want whole milliseconds within 0…%v", d.field, d.d, d.most)
		}
	}
	if p.MaxNodes < 0 || p.MaxNodes > capacity.MaxCount || p.MinNodes < 0 || p.MinNodes > capacity.MaxCount {
		return fmt.Errorf("policy: provision: max_nodes %d, min_nodes %d: want 0 to %d", p.MaxNodes, p.MinNodes, capacity.MaxCount)
	}
	return nil
}

// provisionJSON is a Provision in the admin API. 0 means the default there too.
type provisionJSON struct {
	Cooldown    float64 `json:"cooldown_ms"`
	WaitTimeout float64 `json:"wait_timeout_ms"`
	MaxNodes    int     `json:"max_nodes"`
	IdleTimeout float64 `json:"idle_timeout_ms"`
	MinNodes    int     `json:"min_nodes"`
}

// MarshalJSON writes durations in milliseconds, as everywhere in the admin API.
func (p Provision) MarshalJSON() ([]byte, error) {
	return json.Marshal(provisionJSON{capacity.Milliseconds(p.Cooldown), capacity.Milliseconds(p.WaitTimeout), p.MaxNodes, capacity.Milliseconds(p.IdleTimeout), p.MinNodes})
}

// UnmarshalJSON decodes the output of MarshalJSON.
func (p *Provision) UnmarshalJSON(b []byte) error {
	var j provisionJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	read := Provision{MaxNodes: j.MaxNodes, MinNodes: j.MinNodes}
	for _, d := range []struct {
		name string
		from float64
		to   *time.Duration
	}{{"cooldown_ms", j.Cooldown, &read.Cooldown}, {"wait_timeout_ms", j.WaitTimeout, &read.WaitTimeout}, {"idle_timeout_ms", j.IdleTimeout, &read.IdleTimeout}} {
		var err error
		if *d.to, err = capacity.FromMilliseconds(d.name, d.from); err != nil {
			return err
		}
	}
	*p = read
	return nil
}
