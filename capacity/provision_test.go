package capacity

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

var provisionSettings = Provision{Cooldown: 10 * time.Second, Wait: 4 * time.Second, Most: 5, Least: 2}

func TestStarts(t *testing.T) {
	a, b, c := idOf(t, "a"), idOf(t, "b"), idOf(t, "c")
	type step struct {
		at   time.Duration
		do   string // ask, begin, ended, failed, seen
		ids  []peer.ID
		want string // started, coming, settled, pending, or the reason of a refusal
	}
	for name, script := range map[string][]step{
		"all who ask after the first wait for the same server": {
			{0, "ask", nil, "started"}, {0, "ask", nil, "coming"}, {0, "begin", []peer.ID{a}, ""}, {1, "ask", nil, "coming"},
			{2, "ended", nil, ""}, {3, "seen", []peer.ID{a}, "pending"}, {3, "ask", nil, "coming"}, {4, "seen", []peer.ID{a, b}, "settled"},
		},
		"who asks just after it has come is told to look, and later to wait": {
			{0, "ask", nil, "started"}, {0, "begin", []peer.ID{a}, ""}, {1, "ended", nil, ""}, {2, "seen", []peer.ID{a, b}, "settled"},
			{4, "ask", nil, "coming"}, {6, "ask", nil, ProvisioningCooldown}, {10, "ask", nil, "started"},
		},
		"a node that is there before the hook has ended counts": {
			{0, "ask", nil, "started"}, {0, "begin", []peer.ID{a}, ""}, {1, "seen", []peer.ID{a, b}, "pending"}, {2, "failed", nil, ""},
			{3, "ask", nil, "coming"}, {6, "ask", nil, ProvisioningCooldown},
		},
		"failures are told, and tries get rarer": {
			{0, "ask", nil, "started"}, {0, "begin", nil, ""}, {1, "failed", nil, ""}, {2, "ask", nil, ProvisioningFailed}, {10, "ask", nil, ProvisioningFailed},
			{11, "ask", nil, "started"}, {11, "begin", nil, ""}, {12, "failed", nil, ""}, {31, "ask", nil, ProvisioningFailed},
			{32, "ask", nil, "started"}, {32, "begin", nil, ""}, {33, "failed", nil, ""}, {72, "ask", nil, ProvisioningFailed}, {73, "ask", nil, "started"},
		},
		"success makes up for failures": {
			{0, "ask", nil, "started"}, {0, "begin", nil, ""}, {1, "failed", nil, ""}, {11, "ask", nil, "started"}, {11, "begin", nil, ""}, {12, "ended", nil, ""},
			{13, "seen", []peer.ID{c}, "settled"}, {21, "ask", nil, "started"}, {21, "begin", nil, ""}, {22, "failed", nil, ""}, {31, "ask", nil, ProvisioningFailed}, {32, "ask", nil, "started"},
		},
		"a server that does not come is a failure": {
			{0, "ask", nil, "started"}, {0, "begin", []peer.ID{a}, ""}, {1, "ended", nil, ""}, {10, "seen", []peer.ID{a}, "pending"}, {10, "ask", nil, "coming"},
			{11, "seen", []peer.ID{a}, "settled"}, {12, "ask", nil, ProvisioningTimedOut}, {21, "ask", nil, "started"},
		},
		"a region has no more than it may": {
			{0, "ask", nil, "started"}, {0, "begin", []peer.ID{a, b, c, idOf(t, "d"), idOf(t, "e")}, ProvisioningMaxNodes}, {0, "ended", nil, ""},
			{1, "ask", nil, ProvisioningMaxNodes}, {10, "ask", nil, "started"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s Starts
			for i, st := range script {
				now := epoch.Add(st.at * time.Second)
				got := ""
				switch st.do {
				case "ask":
					coming, refused := s.Ask(now, provisionSettings, fmt.Sprint(i))
					switch {
					case refused != nil:
						if got = refused.Reason; refused.RetryAfter <= 0 {
							t.Errorf("step %d: %v: it does not say when to come again", i, refused)
						}
					case coming.Started:
						got = "started"
					default:
						got = "coming"
					}
				case "begin":
					if refused := s.Begin(now, provisionSettings, st.ids); refused != nil {
						got = refused.Reason
					}
				case "ended":
					s.Ended(now, provisionSettings, nil)
				case "failed":
					s.Ended(now, provisionSettings, errors.New("exit status 1"))
				case "seen":
					if got = "pending"; s.Seen(now, provisionSettings, st.ids) {
						got = "settled"
					}
				}
				if got != st.want {
					t.Fatalf("step %d, %s at %d s: %q, want %q", i, st.do, st.at, got, st.want)
				}
			}
		})
	}
}

func TestBackOffIsBounded(t *testing.T) {
	var s Starts
	now := epoch
	for range 100 {
		if c, refused := s.Ask(now, provisionSettings, "x"); refused != nil || !c.Started {
			t.Fatalf("at the time it said: %+v, %v", c, refused)
		}
		s.Ended(now, provisionSettings, errors.New("no"))
		_, refused := s.Ask(now, provisionSettings, "y")
		if refused == nil || refused.RetryAfter > backOffMost {
			t.Fatalf("refused with %+v", refused)
		}
		if !strings.Contains(refused.Detail, "no") {
			t.Errorf("it does not say why: %v", refused)
		}
		now = now.Add(refused.RetryAfter)
	}
}

// Whatever is asked and happens in whatever order, hooks do not overlap, and two
// of them are a cooldown apart.
func TestStartsKeepApart(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var s Starts
		now, last, running := epoch, time.Time{}, false
		for range 500 {
			now = now.Add(time.Duration(rnd.IntN(4000)) * time.Millisecond)
			switch rnd.IntN(4) {
			case 0, 1:
				c, _ := s.Ask(now, provisionSettings, "r")
				if !c.Started {
					continue
				}
				if running || !last.IsZero() && now.Sub(last) < provisionSettings.Cooldown {
					t.Fatalf("seed %d: started after %v, running %v", seed, now.Sub(last), running)
				}
				last, running = now, s.Begin(now, provisionSettings, make([]peer.ID, rnd.IntN(7))) == nil
			case 2:
				if running {
					running = false
					s.Ended(now, provisionSettings, map[bool]error{true: errors.New("no")}[rnd.IntN(2) == 0])
				}
			case 3:
				s.Seen(now, provisionSettings, []peer.ID{peer.ID(fmt.Sprint(rnd.IntN(3)))})
			}
		}
	}
}

func TestReleases(t *testing.T) {
	record := func(name string, used int64, state State) Record {
		return Record{Node: idOf(t, name), State: state, Sessions: Usage{used, 10}}
	}
	region := []Record{record("a", 1, Active), record("b", 0, Active), record("c", 0, Active), record("d", 0, Draining)}
	b, c := idOf(t, "b"), idOf(t, "c")
	ask := func(r *Releases, after time.Duration, node peer.ID, region []Record) string {
		if refused := r.Ask(epoch.Add(after), provisionSettings, node, region); refused != nil {
			if refused.RetryAfter <= 0 {
				t.Errorf("%v: it does not say when to come again", refused)
			}
			return refused.Reason
		}
		return ""
	}
	var r Releases
	if got := ask(&r, 0, b, region); got != "" {
		t.Errorf("two others stay: refused with %s", got)
	}
	if got := ask(&r, time.Second, b, region); got != "" {
		t.Errorf("asked again: refused with %s", got)
	}
	if got := ask(&r, time.Second, c, region); got != "release-cooldown" {
		t.Errorf("another within the cooldown: %q", got)
	}
	if got := ask(&r, 11*time.Second, c, region); got != "release-least" {
		t.Errorf("only one would stay, for b is on its way out though its record is there: %q", got)
	}
	for name, c := range map[string]struct {
		region []Record
		want   string
	}{
		"nobody else":                   {[]Record{record("b", 0, Active)}, "release-least"},
		"the others need the room":      {[]Record{record("a", 8, Active), record("c", 9, Full), record("b", 0, Active)}, "release-room"},
		"a full one and one with room":  {[]Record{record("a", 10, Full), record("c", 1, Active)}, ""},
		"a draining one does not stay":  {[]Record{record("a", 1, Active), record("c", 0, Draining)}, "release-least"},
		"its own record need not be in": {[]Record{record("a", 1, Active), record("c", 1, Active)}, ""},
	} {
		var r Releases
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

// A rule that has nothing to do with how full nodes are is not cured by one more.
func TestRejectsNew(t *testing.T) {
	me := typicalRecord(t, "me")
	me.State, me.Sessions.Used, me.CPU, me.Uplink.Used = Full, me.Sessions.Limit, 1, me.Uplink.Limit
	view := Need{Purpose: View, Uplink: 2_500_000, Packets: 300}
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
		p := DefaultPolicy()
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
