package scale

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/policy"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func idOf(name string) peer.ID { return peer.ID(name) }

var provisionSettings = policy.Provision{Cooldown: 10 * time.Second, WaitTimeout: 4 * time.Second, MaxNodes: 5, MinNodes: 2}

func TestUp(t *testing.T) {
	a, b, c := idOf("a"), idOf("b"), idOf("c")
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
			{0, "ask", nil, "started"}, {0, "begin", []peer.ID{a, b, c, idOf("d"), idOf("e")}, ProvisioningMaxNodes}, {0, "ended", nil, ""},
			{1, "ask", nil, ProvisioningMaxNodes}, {10, "ask", nil, "started"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s Up
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
	var s Up
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

// In any order of requests and events, hooks do not overlap, and two of them
// are a cooldown apart.
func TestStartsKeepApart(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var s Up
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
