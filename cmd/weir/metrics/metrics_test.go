package metrics

import (
	"strings"
	"testing"
)

func TestShortProtocol(t *testing.T) {
	for id, want := range map[string]string{
		"/weir/open/records/1":       "records",
		"/weir/7f3a9cd0e1/kad/1.0.0": "kad",
		"/weir/kad/reserve/1":        "reserve",
		"/ipfs/id/1.0.0":             "id",
		"/ipfs/id/push/1.0.0":        "id",
		"":                           "negotiation",
		"/weir/records/unheard-of/1": "other",
		"/some/peer's/idea" + strings.Repeat("x", 99): "other",
	} {
		if got := shortProtocol(id); got != want {
			t.Errorf("%q is %s, want %s", id, got, want)
		}
	}
}
