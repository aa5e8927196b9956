package holder

import (
	"strings"
	"testing"

	"weir/capacity"
)

func TestTopicNames(t *testing.T) {
	long := strings.Repeat("x", capacity.MaxLabel+1)
	for _, c := range []struct {
		topic        Topic
		region, bits string
		ok           bool
	}{
		{"capacity/eu/*", "eu", "", true},
		{"capacity/eu/0110", "eu", "0110", true},
		{"capacity/*/1", "", "1", true},
		{"capacity/%2A/*", "*", "", true},
		{"capacity/a%2Fb/*", "a/b", "", true},
		{"capacity/a/b/*", "", "", false},
		{"capacity//*", "", "", false},
		{"capacity/eu/", "", "", false},
		{"capacity/eu/012", "", "", false},
		{"capacity/eu/" + Topic(strings.Repeat("0", MaxShardBits+1)), "", "", false},
		{"capacity/%65u/*", "", "", false}, // eu, spelled otherwise
		{"capacity/%zz/*", "", "", false},
		{Topic("capacity/" + long + "/*"), "", "", false},
		{"capacity", "", "", false},
	} {
		region, bits, ok := c.topic.Shard()
		if ok != c.ok || ok && (region != c.region || bits != c.bits) {
			t.Errorf("%s: region %q, bits %q, %v", c.topic, region, bits, ok)
		}
		if err := c.topic.Check(); (err == nil) != c.ok {
			t.Errorf("%s: check says %v", c.topic, err)
		}
	}
}
