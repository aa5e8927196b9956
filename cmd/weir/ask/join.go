package ask

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/dht"
	"weir/dht/inspect"
)

// joinTimeout bounds joining a network as a client.
const joinTimeout = 10 * time.Second

// Join joins the network named by the flags.
func Join(c *cli.Context) (*dht.Node, func(), error) {
	var bootstrap []peer.AddrInfo
	for _, s := range c.StringSlice("bootstrap") {
		info, err := dht.ParseBootstrap(s)
		if err != nil {
			return nil, nil, cmdline.BadInput(err)
		}
		bootstrap = append(bootstrap, info)
	}
	discovery, servers, err := DiscoveryOf(c, nil)
	if err != nil {
		return nil, nil, cmdline.BadInput(err)
	}
	key, _, err := crypto.GenerateEd25519Key(nil)
	if err != nil {
		return nil, nil, err
	}
	n, err := dht.Listen(dht.Config{
		Key: key, Network: c.String("network"), Bootstrap: bootstrap, Discovery: discovery, Servers: ServersOf(servers),
		Client: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(c.Context)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = n.Run(ctx) // ends with ctx
	}()
	leave := func() {
		cancel()
		<-ran
		_ = n.Close()
	}
	timeout := time.NewTimer(joinTimeout)
	defer timeout.Stop()
	select {
	case <-n.Ready():
	case <-timeout.C:
	case <-ctx.Done():
	}
	// A node of another network connects as well, but serves none of our
	// protocols.
	if !slices.ContainsFunc(n.Prober.Peers(), func(p inspect.PeerInfo) bool { return p.Connected && p.Member }) {
		leave()
		return nil, nil, cli.Exit(fmt.Sprintf("none of the %s could be reached as a node of network %q: check the addresses, and --network",
			map[bool]string{true: "bootstrap peers", false: "servers listed"}[len(bootstrap) > 0], c.String("network")), cmdline.ExitConnection)
	}
	return n, leave, nil
}

// Standalone reports whether the command has to join the network itself.
func Standalone(c *cli.Context) bool {
	return (c.IsSet("bootstrap") || c.IsSet("server") || c.IsSet("server-list")) && !(c.IsSet("admin") && flagGiven(c, "admin"))
}

// flagGiven reports whether a flag was on the command line, not only in the
// environment.
func flagGiven(c *cli.Context, name string) bool {
	return slices.ContainsFunc(os.Args, func(a string) bool {
		return a == "--"+name || strings.HasPrefix(a, "--"+name+"=") || a == "-"+name
	})
}
