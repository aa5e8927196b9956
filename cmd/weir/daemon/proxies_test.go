package daemon

import (
	"strings"
	"testing"
)

func TestProxyFlags(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--trusted-proxy", "nginx"}, `--trusted-proxy: "nginx" is no network`},
		{[]string{"--trusted-proxy", "10.1.0.0/8"}, "10.0.0.0/8 is the network"},
		{[]string{"--trusted-proxy", "0.0.0.0/0"}, "every address"},
		{[]string{"--proxy-protocol"}, "--trusted-proxy CIDR"},
		{[]string{"--address-sessions", "-1"}, "--address-sessions -1: give 0"},
		{[]string{"--cors-origin", "example.org"}, `--cors-origin "example.org": want an origin such as https://`},
		{[]string{"--cors-origin", "https://example.org/"}, "write https://example.org"},
	} {
		if _, err := parse(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
	cfg, err := parse(t, "--trusted-proxy", "10.0.0.0/8", "--trusted-proxy", "127.0.0.1", "--proxy-protocol", "--cors-origin", "https://example.org")
	if err != nil || !cfg.proxies.Any() || !cfg.proxyHead {
		t.Errorf("%v, %+v", err, cfg.proxies)
	}
}
