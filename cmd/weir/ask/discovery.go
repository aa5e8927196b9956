package ask

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/dht/directory"
)

// DiscoveryFlags select the nodes that hold records. They must be the same at
// every node and client of a network.
func DiscoveryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "discovery", Usage: "who holds the records: kademlia (the nodes closest to the key), broker (the servers listed), pull (each server listed its own) or push (every server listed)", Value: string(directory.Kademlia), EnvVars: cmdline.Env("DISCOVERY")},
		&cli.StringSliceFlag{Name: "server", Usage: "`MULTIADDR` of a server for --discovery broker, pull or push, with /p2p/ID; repeatable", EnvVars: cmdline.Env("SERVER")},
		&cli.StringFlag{Name: "server-list", Usage: "`FILE` with the addresses of such servers, one a line; read again when it changes", EnvVars: cmdline.Env("SERVER_LIST")},
	}
}

// DiscoveryOf reads discoveryFlags. The list is nil if the mode uses none.
func DiscoveryOf(c *cli.Context, log *slog.Logger) (directory.Mode, *directory.ServerList, error) {
	discovery, err := directory.ParseMode(c.String("discovery"))
	if err != nil {
		return "", nil, fmt.Errorf("--%w", err)
	}
	given, file := c.StringSlice("server"), c.String("server-list")
	switch listed := len(given) > 0 || file != ""; {
	case !discovery.Listed() && listed:
		return "", nil, errors.New("--server and --server-list are for --discovery broker, pull or push; with kademlia the holders are elected, and --bootstrap names the nodes to join by")
	case !discovery.Listed():
		return discovery, nil, nil
	case !listed:
		return "", nil, fmt.Errorf("--discovery %s needs to know the %s: give --server MULTIADDR for each, or --server-list FILE with one a line",
			discovery, map[bool]string{true: "brokers", false: "nodes that take part"}[discovery.Brokers()])
	}
	var fixed []peer.AddrInfo
	for _, s := range given {
		ai, err := directory.ParseServer(s)
		if err != nil {
			return "", nil, fmt.Errorf("--server: %w", err)
		}
		fixed = append(fixed, ai)
	}
	list, err := directory.NewServerList(fixed, file, log)
	if err != nil && file != "" {
		err = fmt.Errorf("--server-list %w", err)
	}
	return discovery, list, err
}

// ServersOf returns a list in the form of a [dht.Config].
func ServersOf(l *directory.ServerList) func() []peer.AddrInfo {
	if l == nil {
		return nil
	}
	return l.Servers
}
