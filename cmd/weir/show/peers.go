package show

import (
	"fmt"

	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v2"

	"weir/cmd/weir/ask"
	"weir/cmd/weir/term"
	"weir/dht/inspect"
)

func PeersCommand() *cli.Command {
	return &cli.Command{
		Name: "peers", Usage: "known and connected peers of a running node", Flags: ask.Flags(),
		Description: "RTT is measured, PREDICTED modelled from both nodes' network coordinates; ERROR is\n" +
			"how far the peer trusts its own (0 fully, 1 not at all). CLOCK is how far the\n" +
			"peer's clock is ahead of this node's. HOLDER tells who holds the records of this\n" +
			"node's neighbourhood.",
		Action: func(c *cli.Context) error {
			var peers []inspect.PeerInfo
			if done, err := ask.Get(c, "/peers", &peers); done {
				return err
			}
			if len(peers) == 0 {
				fmt.Fprintln(c.App.Writer, "no peers: weir doctor says why")
				return nil
			}
			known := ask.NamesOf(c)
			term.Table(term.Of(c), "NAME\tCONNECTED\tRTT\tHOLDER\tHOLDS\tPEER\tCLOCK\tPREDICTED\tERROR\tADDRESS", func(row func(...any)) {
				for _, p := range peers {
					row(term.Called(known.Of(p.ID)), connectionStyle(p).Of(connection(p)), term.Millis(p.RTT), term.YesNo(p.Holder), holdings(p), p.ID,
						clockOffset(p), term.Millis(p.CoordinateRTT), coordinateError(p), addressOf(p))
				}
			})
			return nil
		},
	}
}

func connectionStyle(p inspect.PeerInfo) term.Style {
	if !p.Connected || !p.Member {
		return term.Warn
	}
	return term.Plain
}

// connection describes how a peer is connected, and which end dialled.
func connection(p inspect.PeerInfo) string {
	switch {
	case !p.Connected:
		return "no"
	case !p.Member:
		return p.Transport + " " + p.Direction + ", not of this network"
	}
	return p.Transport + " " + p.Direction
}

func coordinateError(p inspect.PeerInfo) string {
	if p.CoordinateError == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", p.CoordinateError)
}

// clockOffset describes how far a peer's clock is ahead of ours.
func clockOffset(p inspect.PeerInfo) string {
	switch off := p.ClockOffset; {
	case p.Told.IsZero():
		return "-"
	case off > -10 && off < 10: // the accuracy of a measurement over a network
		return fmt.Sprintf("%+.1f ms", off)
	case off > -1000 && off < 1000:
		return fmt.Sprintf("%+.0f ms", off)
	default:
		return fmt.Sprintf("%+.1f s", off/1000)
	}
}

// holdings describes the records that a peer holds.
func holdings(p inspect.PeerInfo) string {
	switch {
	case p.Told.IsZero():
		return "-"
	case p.Holds == 0:
		return "nothing"
	}
	return fmt.Sprintf("%s in %s", term.Count(p.Holds, "record", "records"), term.Count(p.HoldsTopics, "topic", "topics"))
}

// addressOf is the address that a connection to p uses, or would use.
func addressOf(p inspect.PeerInfo) string {
	for _, a := range p.Addrs {
		if _, err := a.ValueForProtocol(multiaddr.P_QUIC_V1); (err == nil) == (p.Transport == "quic") {
			return a.String()
		}
	}
	if len(p.Addrs) > 0 {
		return p.Addrs[0].String()
	}
	return "-"
}
