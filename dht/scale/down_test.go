package scale

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

func TestDown(t *testing.T) {
	record := func(name string, used int64, state capacity.State) capacity.Record {
		return capacity.Record{Node: idOf(name), State: state, Sessions: capacity.Usage{Used: used, Limit: 10}}
	}
	region := []capacity.Record{record("a", 1, capacity.Active), record("b", 0, capacity.Active), record("c", 0, capacity.Active), record("d", 0, capacity.Draining)}
	b, c := idOf("b"), idOf("c")
	ask := func(r *Down, after time.Duration, node peer.ID, region []capacity.Record) string {
		if refused := r.Ask(epoch.Add(after), provisionSettings, node, region); refused != nil {
			if refused.RetryAfter <= 0 {
				t.Errorf("%v: it does not say when to come again", refused)
			}
			return refused.Reason
		}
		return ""
	}
	var r Down
	if got := ask(&r, 0, b, region); got != "" {
		t.Errorf("two others stay: refused with %s", got)
	}
	if got := ask(&r, time.Second, b, region); got != "" {
		t.Errorf("asked again: refused with %s", got)
	}
	if got := ask(&r, time.Second, c, region); got != "release-cooldown" {
		t.Errorf("another within the cooldown: %q", got)
	}
	if got := ask(&r, 11*time.Second, c, region); got != "release-min-nodes" {
		t.Errorf("only one would stay, for b is on its way out though its record is there: %q", got)
	}
	for name, c := range map[string]struct {
		region []capacity.Record
		want   string
	}{
		"nobody else":                   {[]capacity.Record{record("b", 0, capacity.Active)}, "release-min-nodes"},
		"the others need the room":      {[]capacity.Record{record("a", 8, capacity.Active), record("c", 9, capacity.Full), record("b", 0, capacity.Active)}, "release-room"},
		"a full one and one with room":  {[]capacity.Record{record("a", 10, capacity.Full), record("c", 1, capacity.Active)}, ""},
		"a draining one does not stay":  {[]capacity.Record{record("a", 1, capacity.Active), record("c", 0, capacity.Draining)}, "release-min-nodes"},
		"its own record need not be in": {[]capacity.Record{record("a", 1, capacity.Active), record("c", 1, capacity.Active)}, ""},
	} {
		var r Down
		if got := ask(&r, 0, b, c.region); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestIdle(t *testing.T) {
	var i Idle
	for _, step := range []struct {
		at    time.Duration
		empty bool
		want  time.Duration
	}{{0, true, 0}, {3, true, 3}, {4, false, 0}, {5, true, 1}, {9, true, 5}} {
		if got := i.Next(epoch.Add(step.at*time.Second), step.empty); got != step.want*time.Second {
			t.Errorf("at %d s: idle for %v, want %d s", step.at, got, step.want)
		}
	}
}
