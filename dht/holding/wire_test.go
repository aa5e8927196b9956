package holding

import (
	"slices"
	"testing"

	"github.com/multiformats/go-multiaddr"
)

func TestDialable(t *testing.T) {
	var all []multiaddr.Multiaddr
	for _, s := range []string{"/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.1/udp/1/quic-v1"} {
		all = append(all, multiaddr.StringCast(s))
	}
	for n, want := range [][]multiaddr.Multiaddr{{}, all[:1], all[:2], {all[0], all[2]}} {
		if got := dialable(all[:n]); !slices.EqualFunc(got, want, multiaddr.Multiaddr.Equal) {
			t.Errorf("of %v: %v, want %v", all[:n], got, want)
		}
	}
}
