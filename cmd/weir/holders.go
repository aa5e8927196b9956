package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/dht"
)

// holderFlags say who holds records. They must be the same at every node of a
// network, and at whoever joins it.
func holderFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "holders", Usage: "who holds the records: dht (the nodes closest to the key), central (the servers listed), none (each server listed its own) or all (every server listed)", Value: string(dht.HoldDHT), EnvVars: env("HOLDERS")},
		&cli.StringSliceFlag{Name: "holder", Usage: "`MULTIADDR` of a server for --holders central, none or all, with /p2p/ID; repeatable", EnvVars: env("HOLDER")},
		&cli.StringFlag{Name: "server-list", Usage: "`FILE` with the addresses of such servers, one a line; read again when it changes", EnvVars: env("SERVER_LIST")},
	}
}

// holdersOf reads holderFlags. The list is nil where there is none to be had.
func holdersOf(c *cli.Context, log *slog.Logger) (dht.Holding, *dht.ServerList, error) {
	holding, err := dht.ParseHolding(c.String("holders"))
	if err != nil {
		return "", nil, fmt.Errorf("--%w", err)
	}
	given, file := c.StringSlice("holder"), c.String("server-list")
	switch listed := len(given) > 0 || file != ""; {
	case holding == dht.HoldDHT && listed:
		return "", nil, errors.New("--holder and --server-list are for --holders central, none or all; with dht the holders are elected, and --bootstrap names the nodes to join by")
	case holding == dht.HoldDHT:
		return holding, nil, nil
	case !listed:
		return "", nil, fmt.Errorf("--holders %s needs to know the %s: give --holder MULTIADDR for each, or --server-list FILE with one a line",
			holding, map[bool]string{true: "brokers", false: "nodes that take part"}[holding == dht.HoldCentral])
	}
	var fixed []peer.AddrInfo
	for _, s := range given {
		ai, err := dht.ParseServer(s)
		if err != nil {
			return "", nil, fmt.Errorf("--holder: %w", err)
		}
		fixed = append(fixed, ai)
	}
	list, err := dht.NewServerList(fixed, file, log)
	if err != nil && file != "" {
		err = fmt.Errorf("--server-list %w", err)
	}
	return holding, list, err
}

// serversOf is a list as a [dht.Config] wants it.
func serversOf(l *dht.ServerList) func() []peer.AddrInfo {
	if l == nil {
		return nil
	}
	return l.Servers
}

// holdersLine is what status says of them.
func holdersLine(s status) string {
	if s.Holders == dht.HoldDHT {
		return string(s.Holders)
	}
	return fmt.Sprintf("%s, %s", s.Holders, count(s.Servers, "server listed", "servers listed"))
}

func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
