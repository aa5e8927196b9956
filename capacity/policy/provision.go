package policy

import (
	"encoding/json"
	"time"

	"weir/capacity"
)

// provisionJSON is a Provision in the admin API. 0 means the default there too.
type provisionJSON struct {
	Cooldown float64 `json:"cooldown_ms"`
	Wait     float64 `json:"wait_ms"`
	Most     int     `json:"most"`
	Idle     float64 `json:"idle_ms"`
	Least    int     `json:"least"`
}

// MarshalJSON writes durations in milliseconds, as everywhere in the admin API.
func (p Provision) MarshalJSON() ([]byte, error) {
	return json.Marshal(provisionJSON{capacity.Milliseconds(p.Cooldown), capacity.Milliseconds(p.WaitTimeout), p.MaxNodes, capacity.Milliseconds(p.IdleTimeout), p.MinNodes})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *Provision) UnmarshalJSON(b []byte) error {
	var j provisionJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	read := Provision{MaxNodes: j.Most, MinNodes: j.Least}
	for _, d := range []struct {
		name string
		from float64
		to   *time.Duration
	}{{"cooldown_ms", j.Cooldown, &read.Cooldown}, {"wait_ms", j.Wait, &read.WaitTimeout}, {"idle_ms", j.Idle, &read.IdleTimeout}} {
		var err error
		if *d.to, err = capacity.FromMilliseconds(d.name, d.from); err != nil {
			return err
		}
	}
	*p = read
	return nil
}
