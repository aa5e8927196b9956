package directory

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	kb "github.com/libp2p/go-libp2p-kbucket"
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/holder"
	"weir/dht/liveness"
)

var noon = time.Unix(1_700_000_000, 0)

// view is the View of node "me", with others in the routing table and on the
// list.
func view(others ...peer.ID) View {
	return View{
		ID: "me", NetworkID: "net", Live: liveness.New(), Cache: NewCache(),
		Servers: func() []peer.ID { return others },
		Home:    func() holder.Topic { return testHome },
		Near: func(key kb.ID) []peer.ID {
			return Closest(key, slices.DeleteFunc(slices.Clone(others), func(p peer.ID) bool { return p == "me" }))
		},
		Member: func(peer.ID) bool { return true },
	}
}

// crash makes p unreachable and down at noon.
func crash(v View, p peer.ID) {
	for s := 10 * time.Second; s >= 0; s -= time.Second {
		v.Live.Failed(noon.Add(-s), p, liveness.NoConnection)
	}
}

func TestWhoHoldsAndVotes(t *testing.T) {
	demo := holder.StreamTopic("demo")
	key := kb.ConvertKey(demo.Key("net"))
	many := Closest(key, peersNamed(0, 40))
	crashed := many[0]
	for _, c := range []struct {
		name   string
		mode   Mode
		others []peer.ID // none of which is "me" unless listed
		client bool

		remote         int // holders
		self, all      bool
		holds, whole   bool
		voters, must   int
		each, known    bool
		crashedMayHold bool
	}{
		{name: "kademlia, few", mode: Kademlia, others: many[:5], remote: 4, self: true, all: true, holds: true, whole: true, voters: 5, must: 3, known: true, crashedMayHold: true},
		{name: "kademlia, many", mode: Kademlia, others: many, remote: 8, holds: true, voters: 9, must: 5, known: true, crashedMayHold: true},
		{name: "kademlia, many, a client", mode: Kademlia, others: many, client: true, remote: 8, holds: true, voters: 9, must: 5, known: true, crashedMayHold: true},
		{name: "brokers", mode: Broker, others: many[:3], remote: 2, whole: true, voters: 2, must: 2, crashedMayHold: true},
		{name: "a broker", mode: Broker, others: append(slices.Clone(many[:3]), "me"), remote: 2, self: true, all: true, holds: true, whole: true, voters: 3, must: 2, crashedMayHold: true},
		{name: "pull", mode: Pull, others: many[:3], self: true, whole: true, voters: 3, must: 3, each: true, crashedMayHold: true},
		{name: "pull, a client", mode: Pull, others: many[:3], client: true, whole: true, voters: 2, must: 2, each: true, crashedMayHold: true},
		{name: "push", mode: Push, others: append(slices.Clone(many[:5]), "me"), remote: 4, self: true, all: true, holds: true, whole: true, voters: 5, must: 3, crashedMayHold: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := view(c.others...)
			v.Client = c.client
			crash(v, crashed)
			d := New(c.mode, v)
			if h, _ := d.Holders(noon, demo); len(h.Remote) != c.remote || h.Self != c.self || h.All != c.all || slices.Contains(h.Remote, crashed) {
				t.Errorf("holders %+v: want %d remote ones, self %v, all %v, and not the one that crashed", h, c.remote, c.self, c.all)
			}
			if d.Holds() != c.holds || d.Complete(noon) != c.whole {
				t.Errorf("holds %v, whole %v", d.Holds(), d.Complete(noon))
			}
			list, must := d.Voters(noon, demo, nil)
			if len(list) != c.voters || must != c.must {
				t.Errorf("%d of %d voters have to answer, want %d of %d", must, len(list), c.must, c.voters)
			}
			each, own := d.Each()
			if own != c.each || own != c.mode.Own() || own && len(each) != len(c.others) {
				t.Errorf("each %v, own %v", each, own)
			}
			if known := d.Known(many[:2]); (len(known) == 8) != c.known {
				t.Errorf("tells holders %d bytes of each other", len(known))
			}
			if got := slices.Contains(d.MayHold(noon, demo), crashed); got != c.crashedMayHold {
				t.Errorf("the one that crashed may hold: %v", got)
			}
			if slices.Contains(d.MayHold(noon.Add(capacity.DefaultTTL), demo), crashed) {
				t.Error("the one that crashed may hold a record that has run out")
			}
			if _, ok := d.Heir(noon, demo); ok {
				t.Error("a node that is no holder among many has an heir")
			}
			if err := d.Predecessor(noon, demo, "stranger"); err == nil {
				t.Error("a stranger hands records over")
			} else if c.mode.Listed() && !errors.Is(err, ErrNotHolder) {
				t.Errorf("a hand-over where a list says who holds: %v", err)
			}
			if c.mode.Listed() && d.Meets(noon, "stranger") {
				t.Error("a holder that is not listed is met")
			}
		})
	}
}

// A leaving holder has the ninth closest node as its heir, which accepts
// records only from the nine closest.
func TestHeir(t *testing.T) {
	demo := holder.StreamTopic("demo")
	ordered := Closest(kb.ConvertKey(demo.Key("net")), peersNamed(0, 30))
	v := view(slices.Concat(ordered[:3], ordered[4:])...)
	v.ID = ordered[3]
	d := New(Kademlia, v)
	if heir, ok := d.Heir(noon, demo); !ok || heir != ordered[8] {
		t.Errorf("heir %s, %v: want %s", heir, ok, ordered[8])
	}
	v = view(slices.Concat(ordered[:8], ordered[9:])...)
	v.ID = ordered[8]
	d = New(Kademlia, v)
	if err := d.Predecessor(noon, demo, ordered[3]); err != nil {
		t.Errorf("a holder's records are not taken: %v", err)
	}
	if err := d.Predecessor(noon, demo, ordered[10]); !errors.Is(err, ErrNotPredecessor) {
		t.Errorf("records of a node that was no holder: %v", err)
	}
}

// A voter named by others counts once it has answered itself.
func TestNamedVoters(t *testing.T) {
	demo := holder.StreamTopic("demo")
	ordered := Closest(kb.ConvertKey(demo.Key("net")), peersNamed(0, 30))
	d := New(Kademlia, view(ordered[1:]...))
	if list, _ := d.Voters(noon, demo, nil); list[0] != ordered[1] {
		t.Errorf("voters %v", list)
	}
	if list, must := d.Voters(noon, demo, ordered[:1]); list[0] != ordered[0] || len(list) != Everyone || must != 5 {
		t.Errorf("%d of voters %v", must, list)
	}
}

// A holder names the holders that a publisher lacks, but not the publisher
// itself.
func TestCloserHolders(t *testing.T) {
	demo := holder.StreamTopic("demo")
	ordered := Closest(kb.ConvertKey(demo.Key("net")), peersNamed(0, 30))
	d := New(Kademlia, view(ordered...))
	known := d.Known(slices.Concat(ordered[2:8], ordered[9:11]))
	if got := d.Closer(noon, demo, ordered[1], known); !slices.Equal(got, ordered[:1]) {
		t.Errorf("closer holders %v, want %s", got, ordered[0])
	}
	for _, m := range []Mode{Broker, Pull, Push} {
		if got := New(m, view(ordered...)).Closer(noon, demo, "p", nil); len(got) > 0 {
			t.Errorf("%s names %v", m, got)
		}
	}
}

func TestParseMode(t *testing.T) {
	for _, m := range Modes() {
		if got, err := ParseMode(string(m)); err != nil || got != m {
			t.Errorf("%s: %s, %v", m, got, err)
		}
	}
	if m, err := ParseMode(""); err != nil || m != Kademlia || m.Listed() {
		t.Errorf("no mode: %s, %v", m, err)
	}
	if _, err := ParseMode("some"); err == nil || !strings.Contains(err.Error(), "kademlia, broker, pull or push") {
		t.Errorf("no such mode: %v", err)
	}
}
