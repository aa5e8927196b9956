package main

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/cmd/weir/api"
)

// nodeNames are the known names of nodes. A name is a claim: if several nodes
// claim the same one, each is shown with the end of its peer ID. The zero value
// knows none.
type nodeNames struct {
	byID   map[peer.ID]string
	shared map[string]bool
}

func newNames(byID map[peer.ID]string) nodeNames {
	n := nodeNames{byID, map[string]bool{}}
	seen := map[string]bool{}
	for _, name := range byID {
		n.shared[name] = n.shared[name] || seen[name]
		seen[name] = true
	}
	return n
}

// namesIn collects the names that records claim.
func namesIn(entries []api.Record) nodeNames {
	byID := map[peer.ID]string{}
	for _, e := range entries {
		if e.Record != nil && e.Record.Name != "" {
			byID[e.Node] = e.Record.Name
		}
	}
	return newNames(byID)
}

// of returns a node's name for people: its name, the end of its peer ID, or both.
func (n nodeNames) of(id peer.ID) string {
	switch name := n.byID[id]; {
	case id == "", name == "":
		return shortID(id)
	case n.shared[name]:
		return name + shortID(id)
	default:
		return name
	}
}

// namesOfCarriers collects the names of a stream's carriers.
func namesOfCarriers(s api.Stream) nodeNames {
	byID := map[peer.ID]string{}
	for _, k := range s.Carriers {
		if k.Name != "" {
			byID[k.Node] = k.Name
		}
	}
	return newNames(byID)
}

// list applies of to several IDs.
func (n nodeNames) list(ids []peer.ID) string {
	var all []string
	for _, id := range ids {
		all = append(all, n.of(id))
	}
	return strings.Join(all, " ")
}

// find returns the nodes that s may mean: by peer ID, by the end of one, by
// name, or by the result of of.
func (n nodeNames) find(s string) []peer.ID {
	if id, err := peer.Decode(s); err == nil {
		return []peer.ID{id}
	}
	var found []peer.ID
	for id, name := range n.byID {
		end, isEnd := strings.CutPrefix(s, "…")
		if name == s || n.of(id) == s || isEnd && len(end) >= 4 && strings.HasSuffix(id.String(), end) {
			found = append(found, id)
		}
	}
	slices.SortFunc(found, func(a, b peer.ID) int { return cmp.Compare(a, b) })
	return found
}

// compareNames orders names naturally: n2 is before n10.
func compareNames(a, b string) int {
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

// shortID shortens a peer ID for people.
func shortID(id peer.ID) string {
	s := id.String()
	if len(s) > 8 {
		return "…" + s[len(s)-8:]
	}
	return s
}
