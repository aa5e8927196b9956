// Command weir runs and inspects weir nodes: discovery and cascading for
// WebRTC servers.
package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"
)

func main() {
	app := &cli.App{
		Name:  "weir",
		Usage: "decentralized discovery and cascading for WebRTC servers",
	}
	if err := app.Run(os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "weir:", err)
		os.Exit(1)
	}
}
