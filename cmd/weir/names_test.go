package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
)

func TestNamesOfNodes(t *testing.T) {
	var ids []peer.ID
	for _, s := range []string{
		"12D3KooWGeYejmCRfjCkyaueQiSbs4H9JeggCmtvwJf68KjZLqRJ",
		"12D3KooWKRyzVWW6ChFjQjK4miCty85Niy48tpPV95XdKu1BcvMA",
		"12D3KooWMHNhDHqrxtuPzGaVfkvQ3yW9MvPkRZtzcMFAbzxQhJpm",
	} {
		id, err := peer.Decode(s)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	n := newNames(map[peer.ID]string{ids[0]: "n1", ids[1]: "twin", ids[2]: "twin"})
	for _, c := range []struct {
		id   peer.ID
		want string
	}{
		{ids[0], "n1"},
		{ids[1], "twin" + shortID(ids[1])},
		{ids[2], "twin" + shortID(ids[2])},
		{"", ""},
		{"other", shortID("other")},
	} {
		if got := n.of(c.id); got != c.want {
			t.Errorf("of(%s) = %q, want %q", c.id, got, c.want)
		}
	}
	for _, c := range []struct {
		s    string
		want []peer.ID
	}{
		{"n1", ids[:1]},
		{ids[2].String(), ids[2:]},
		{shortID(ids[1]), ids[1:2]},
		{"twin" + shortID(ids[1]), ids[1:2]},
		{"nobody", nil},
		{"…", nil},
	} {
		if got := n.find(c.s); !slices.Equal(got, c.want) {
			t.Errorf("find(%s) = %v, want %v", c.s, got, c.want)
		}
	}
	if got := n.find("twin"); len(got) != 2 {
		t.Errorf("a shared name means %v, want both", got)
	}
}

// Every host name of a machine must give a name that is valid in a record.
func TestNameOfMachine(t *testing.T) {
	for host, want := range map[string]string{
		"sfu7.eu.example.net":   "sfu7",
		"Lenas MacBook":         "Lenas-MacBook",
		"büro":                  "b-ro",
		strings.Repeat("x", 63): strings.Repeat("x", capacity.MaxName),
		"":                      "",
		"日本":                    "",
	} {
		got := nameOf(host)
		if got != want {
			t.Errorf("nameOf(%q) = %q, want %q", host, got, want)
		}
		if got != "" && capacity.ValidName(got) != nil {
			t.Errorf("nameOf(%q) = %q, which no record takes", host, got)
		}
	}
}

func TestNamesInOrder(t *testing.T) {
	list := []string{"n10", "n2", "n1", "edge", "n", "n02", "10", "9", ""}
	slices.SortFunc(list, compareNames)
	if want := []string{"", "9", "10", "edge", "n", "n1", "n02", "n2", "n10"}; !slices.Equal(list, want) {
		t.Errorf("%q, want %q", list, want)
	}
}
