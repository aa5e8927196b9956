package names

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
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
	n := New(map[peer.ID]string{ids[0]: "n1", ids[1]: "twin", ids[2]: "twin"})
	for _, c := range []struct {
		id   peer.ID
		want string
	}{
		{ids[0], "n1"},
		{ids[1], "twin" + Short(ids[1])},
		{ids[2], "twin" + Short(ids[2])},
		{"", ""},
		{"other", Short("other")},
	} {
		if got := n.Of(c.id); got != c.want {
			t.Errorf("of(%s) = %q, want %q", c.id, got, c.want)
		}
	}
	for _, c := range []struct {
		s    string
		want []peer.ID
	}{
		{"n1", ids[:1]},
		{ids[2].String(), ids[2:]},
		{Short(ids[1]), ids[1:2]},
		{"twin" + Short(ids[1]), ids[1:2]},
		{"nobody", nil},
		{"…", nil},
	} {
		if got := n.Find(c.s); !slices.Equal(got, c.want) {
			t.Errorf("find(%s) = %v, want %v", c.s, got, c.want)
		}
	}
	if got := n.Find("twin"); len(got) != 2 {
		t.Errorf("a shared name means %v, want both", got)
	}
}

func TestNamesInOrder(t *testing.T) {
	list := []string{"n10", "n2", "n1", "edge", "n", "n02", "10", "9", ""}
	slices.SortFunc(list, Compare)
	if want := []string{"", "9", "10", "edge", "n", "n1", "n02", "n2", "n10"}; !slices.Equal(list, want) {
		t.Errorf("%q, want %q", list, want)
	}
}
