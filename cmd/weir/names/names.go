package names

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/cmd/weir/api"
)

// Names are the known names of nodes. A name is a claim: if several nodes
// claim the same one, each is shown with the end of its peer ID. The zero value
// knows none.
type Names struct {
	byID   map[peer.ID]string
	shared map[string]bool
}

// New are the names of nodes by ID.
func New(byID map[peer.ID]string) Names {
	n := Names{byID, map[string]bool{}}
	seen := map[string]bool{}
	for _, name := range byID {
		n.shared[name] = n.shared[name] || seen[name]
		seen[name] = true
	}
	return n
}

// In collects the names that records claim.
func In(entries []api.Record) Names {
	byID := map[peer.ID]string{}
	for _, e := range entries {
		if e.Record != nil && e.Record.Name != "" {
			byID[e.Node] = e.Record.Name
		}
	}
	return New(byID)
}

// Of returns a node's name for people: its name, the end of its peer ID, or both.
func (n Names) Of(id peer.ID) string {
	switch name := n.byID[id]; {
	case id == "", name == "":
		return Short(id)
	case n.shared[name]:
		return name + Short(id)
	default:
		return name
	}
}

// OfCarriers collects the names of a stream's carriers.
func OfCarriers(s api.Stream) Names {
	byID := map[peer.ID]string{}
	for _, k := range s.Carriers {
		if k.Name != "" {
			byID[k.Node] = k.Name
		}
	}
	return New(byID)
}

// List applies of to several IDs.
func (n Names) List(ids []peer.ID) string {
	var all []string
	for _, id := range ids {
		all = append(all, n.Of(id))
	}
	return strings.Join(all, " ")
}

// Find returns the nodes that s may mean: by peer ID, by the end of one, by
// name, or by the result of of.
func (n Names) Find(s string) []peer.ID {
	if id, err := peer.Decode(s); err == nil {
		return []peer.ID{id}
	}
	var found []peer.ID
	for id, name := range n.byID {
		end, isEnd := strings.CutPrefix(s, "…")
		if name == s || n.Of(id) == s || isEnd && len(end) >= 4 && strings.HasSuffix(id.String(), end) {
			found = append(found, id)
		}
	}
	slices.SortFunc(found, func(a, b peer.ID) int { return cmp.Compare(a, b) })
	return found
}

// Compare orders names naturally: n2 is before n10.
func Compare(a, b string) int {
	digits := func(s string) (head string, number int) {
		i := len(s)
		for i > 0 && len(s)-i < 9 && '0' <= s[i-1] && s[i-1] <= '9' {
			i--
		}
		number, _ = strconv.Atoi(s[i:]) // "" is 0
		return s[:i], number
	}
	headA, numberA := digits(a)
	headB, numberB := digits(b)
	return cmp.Or(cmp.Compare(headA, headB), cmp.Compare(numberA, numberB), cmp.Compare(a, b))
}

// Short shortens a peer ID for people.
func Short(id peer.ID) string {
	s := id.String()
	if len(s) > 8 {
		return "…" + s[len(s)-8:]
	}
	return s
}
