package daemon

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/invite"
	"weir/dht/directory"
)

// parse runs nodeConfigOf on weir node's flags.
func parse(t *testing.T, args ...string) (nodeConfig, error) {
	t.Helper()
	set := flag.NewFlagSet("node", flag.ContinueOnError)
	for _, f := range Command().Flags {
		if err := f.Apply(set); err != nil {
			t.Fatal(err)
		}
	}
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return nodeConfigOf(cli.NewContext(cli.NewApp(), set, nil))
}

func TestNodeFlags(t *testing.T) {
	cfg, err := parse(t, "--media-port", "5000", "--http", "127.0.0.1:0", "--uplink-limit", "1gbps", "--session-limit", "3")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.media != "127.0.0.1:5000" || cfg.live.limits.Uplink != 1e9 || cfg.live.limits.Sessions != 3 || cfg.live.limits.Packets == 0 || len(cfg.listen) != 2 {
		t.Errorf("got %+v", cfg)
	}
	cfg, err = parse(t, "--dev", "--data-dir", "/x")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.network != "dev" || cfg.dataDir != "/x" || !strings.Contains(cfg.listen[0].String(), "4001") {
		t.Errorf("--dev gave %+v", cfg)
	}
}

// A wrong flag is named in the error, with a correct value.
func TestNodeFlagsThatAreWrong(t *testing.T) {
	const server = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWGeYejmCRfjCkyaueQiSbs4H9JeggCmtvwJf68KjZLqRJ"
	broken := filepath.Join(t.TempDir(), "servers")
	if err := os.WriteFile(broken, []byte("# brokers\nbroker.example.org\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ args, says string }{
		{"--listen nonsense", "--listen nonsense"},
		{"--listen /ip4/0.0.0.0/tcp/0", "--insecure-open"},
		{"--http 0.0.0.0:8080", "--http 0.0.0.0:8080 can be reached from other machines"},
		{"--http :8080", "can be reached"},
		{"--http 0.0.0.0:8080", "--auth-keys"},
		{"--http 0.0.0.0:8080 --media-port 0.0.0.0:0 --auth-hook http://127.0.0.1:1/ --admin 0.0.0.0:0", "--admin 0.0.0.0:0 can be reached"},
		{"--http 0.0.0.0:8080 --auth-hook http://127.0.0.1:1/ --listen /ip4/0.0.0.0/tcp/0", "--listen /ip4/0.0.0.0/tcp/0 can be reached"},
		{"--auth-keys /nowhere/keys.json", "--auth-keys: /nowhere/keys.json: no such file"},
		{"--auth-keys " + broken, "no JWK set"},
		{"--auth-jwks ftp://example.org/keys", "--auth-jwks: want a URL"},
		{"--auth-jwks http://127.0.0.1:1/ --auth-jwks-refresh 1ms", "1s to 1h"},
		{"--auth-hook nowhere", "--auth-hook: want a URL"},
		{"--auth-hook http://127.0.0.1:1/ --auth-hook-timeout 1h", "at most 30s"},
		{"--ticket-secret " + broken, "weir token secret makes one"},
		{"--auth-sessions 3", "--auth-keys, --auth-jwks or --auth-hook"},
		{"--auth-sessions -1 --auth-hook http://127.0.0.1:1/", "--auth-sessions"},
		{"--admin 192.0.2.1:1", "--admin"},
		{"--media-port 0.0.0.0:0", "--media-port"},
		{"--media-port 99999", "HOST:PORT"},
		{"--public-ip media.example.org", "--public-ip media.example.org: want an address"},
		{"--public-ip 203.0.113.7:8082", "without a port"},
		{"--public-ip 0.0.0.0", "--public-ip"},
		{"--http nowhere", "--http nowhere"},
		{"--bootstrap /ip4/127.0.0.1/tcp/4001", "/p2p/"},
		{"--overflow spill", "redirect, relay or refuse"},
		{"--uplink-limit fast", "5mbps"},
		{"--session-limit -1", "0 for none"},
		{"--cpu-limit 2", "0 to 1"},
		{"--fanout 0", "--fanout"},
		{"--log-level loud", "debug, info, warn or error"},
		{"--log-format xml", "text or json"},
		{"--discovery some", "kademlia, broker, pull or push"},
		{"--discovery broker", "--server-list FILE"},
		{"--discovery pull", "--server MULTIADDR"},
		{"--server " + server, "--discovery broker, pull or push"},
		{"--server-list /nowhere --discovery kademlia", "--discovery broker, pull or push"},
		{"--discovery push --server 192.0.2.1:4001", "--server: server address"},
		{"--discovery push --server-list /nowhere/servers", "create it"},
		{"--discovery push --server-list " + broken, "servers:2: server address"},
	} {
		_, err := parse(t, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want a word of %q", c.args, err, c.says)
		}
	}
	if _, err := parse(t, "--listen", "/ip4/0.0.0.0/tcp/0", "--http", "0.0.0.0:0", "--media-port", "0", "--insecure-open"); err != nil {
		t.Errorf("--insecure-open: %v", err)
	}
	if _, err := parse(t, "--http", "0.0.0.0:0", "--media-port", "0", "--auth-hook", "http://127.0.0.1:1/"); err != nil {
		t.Errorf("beyond loopback with a hook: %v", err)
	}
	if cfg, err := parse(t, "--discovery", "broker", "--server", server); err != nil || cfg.discovery != directory.Broker || len(cfg.servers.Servers()) != 1 {
		t.Errorf("a broker given: %+v, %v", cfg, err)
	}
}

// A token stands for flags; a flag beside it must agree, and addresses add up.
func TestJoinFlags(t *testing.T) {
	const (
		id   = "12D3KooWHJBy88w5VomhCLk2J5V3Vqwx7hzhHfxfrTQTfoXa2YH9"
		addr = "/ip4/127.0.0.1/tcp/4001/p2p/" + id
	)
	token, err := invite.Invitation{Version: invite.Version, Network: "film night", Bootstrap: []string{addr}, Operator: id}.Token()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parse(t, "--join", token, "--bootstrap", "/ip4/127.0.0.1/tcp/4002/p2p/"+id)
	if err != nil || cfg.network != "film night" || cfg.operator.String() != id || len(cfg.bootstrap) != 2 || !slices.Contains(cfg.bootstrap, addr) {
		t.Errorf("joins %q of %s by %q: %v", cfg.network, cfg.operator, cfg.bootstrap, err)
	}
	if _, err := parse(t, "--join", token, "--network", "other"); err == nil || !strings.Contains(err.Error(), `"film night"`) {
		t.Errorf("another network as well: %v", err)
	}
	listed := invite.Invitation{Version: invite.Version, Network: "open", Discovery: "broker", Servers: []string{addr}}
	if token, err = listed.Token(); err != nil {
		t.Fatal(err)
	}
	if cfg, err = parse(t, "--join", token); err != nil || cfg.discovery != "broker" || len(cfg.servers.Servers()) != 1 {
		t.Errorf("a network with brokers: %v", err)
	}
}
