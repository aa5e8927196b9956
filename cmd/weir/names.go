package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
)

// defaultName is a node's name if the operator gave none: the machine's host
// name without its domain.
func defaultName() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	return nameOf(host)
}

// nameOf makes a node's name of a machine's host name, or "" if nothing is left.
func nameOf(host string) string {
	host, _, _ = strings.Cut(host, ".")
	name := strings.Map(func(c rune) rune {
		if capacity.NameRune(c) {
			return c
		}
		return '-'
	}, host)
	return strings.Trim(name[:min(len(name), capacity.MaxName)], "-")
}

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

// namesOf returns the names known to the node that the command asks, or none if
// it does not answer: a table is still useful without names.
func namesOf(c *cli.Context) nodeNames {
	var known map[string]string
	if fetch(c, "/names", &known) != nil {
		return newNames(nil)
	}
	byID := make(map[peer.ID]string, len(known))
	for s, name := range known {
		if id, err := peer.Decode(s); err == nil {
			byID[id] = name
		}
	}
	return newNames(byID)
}

// peerCalled resolves s, a name or the end of a peer ID, to a node.
func peerCalled(c *cli.Context, s string) (peer.ID, error) {
	if id, err := peer.Decode(s); err == nil {
		return id, nil
	}
	known := namesOf(c)
	switch found := known.find(s); len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", cmdline.BadInput(fmt.Errorf("%q is neither one peer ID nor the name of a node that is known here; weir peers shows them", s))
	default:
		return "", cmdline.BadInput(fmt.Errorf("several nodes are called %q: %s; say which", s, known.list(found)))
	}
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

// names are the names known to this node, its own included, by peer ID.
func (n *node) names() map[string]string {
	known := n.dht.Prober.Names()
	if n.cfg.name != "" {
		known[n.dht.ID()] = n.cfg.name
	}
	byID := make(map[string]string, len(known))
	for id, name := range known {
		byID[id.String()] = name
	}
	return byID
}

// nameOf returns id's name as given by its operator, if known.
func (n *node) nameOf(id peer.ID) string {
	if id == n.dht.ID() {
		return n.cfg.name
	}
	return n.dht.Prober.Name(id)
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
