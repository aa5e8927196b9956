package policy

import (
	"testing"

	"weir/capacity"
	"weir/capacity/capacitytest"
)

// A rule that does not depend on the load of nodes is not satisfied by one more
// node.
func TestRejectsNew(t *testing.T) {
	me := capacitytest.Record(t, "me")
	me.State, me.Sessions.Used, me.CPU, me.Uplink.Used = capacity.Full, me.Sessions.Limit, 1, me.Uplink.Limit
	view := capacity.Need{Purpose: capacity.View, Uplink: 2_500_000, Packets: 300}
	for name, c := range map[string]struct {
		rule   string
		region string
		want   string
	}{
		"all that the default asks for": {"true", "eu", ""},
		"room":                          {"r.uplink_free > 1e12 && r.sessions_free > 100 && r.stress < 0.1", "eu", ""},
		"the region that it is for":     {`r.region == "us"`, "us", ""},
		"another region":                {`r.region == "us"`, "eu", "extra"},
		"what no node is":               {`r.zone == "moon"`, "eu", "extra"},
		"what the need is not":          {`q.uplink < 1e6`, "eu", "extra"},
	} {
		p := Default()
		p.Filter = append(p.Filter, Rule{"extra", c.rule})
		j, err := Compile(p)
		if err != nil {
			t.Fatal(err)
		}
		if got := j.RejectsNew(view, me, c.region); got != c.want {
			t.Errorf("a rule that wants %s: %q, want %q", name, got, c.want)
		}
	}
}
