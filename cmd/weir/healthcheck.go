package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/supervise"
	"weir/sfu/problem"
)

// defaultHealthTime is longer than a node takes to detect that it is stuck.
const defaultHealthTime = supervise.CheckTime + time.Second

// healthcheckCommand is for container runtimes and service managers: images of
// weir have no shell and no curl. It exits with 1 for every fault, also if
// nothing answers: 2 is reserved by HEALTHCHECK of Dockerfiles.
func healthcheckCommand() *cli.Command {
	return &cli.Command{
		Name: "healthcheck", Usage: "exit with 0 if the node on this machine works, else with 1; for containers and scripts",
		Description: "Asks the node's admin API, at the address that $WEIR_ADMIN or --admin names. A node\n" +
			"that does not work, or does not answer in time, is to be started anew; one that is\n" +
			"not ready (--ready) is not in its network yet or drains, and only takes no clients.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "admin", Usage: "`ADDR` of a running node's admin API", Value: api.DefaultAdmin, EnvVars: cmdline.Env("ADMIN")},
			&cli.BoolFlag{Name: "ready", Usage: "whether it takes clients, too"},
			&cli.DurationFlag{Name: "timeout", Usage: "how long it may take to answer", Value: defaultHealthTime},
		},
		Action: func(c *cli.Context) error {
			if err := cmdline.NoArguments(c); err != nil {
				return err
			}
			if d := c.Duration("timeout"); d <= 0 || d > time.Minute {
				return cmdline.BadInput(fmt.Errorf("--timeout %v: want more than 0, and up to %v", d, time.Minute))
			}
			base, err := ask.URL(c)
			if err != nil {
				return err
			}
			paths := []string{"/healthz"}
			if c.Bool("ready") {
				paths = append(paths, "/readyz")
			}
			ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
			defer cancel()
			for _, path := range paths {
				if err := well(ctx, base+path); err != nil {
					return cli.Exit(err.Error(), cmdline.ExitFailure)
				}
			}
			_, err = fmt.Fprintln(c.App.Writer, "ok")
			return err
		},
	}
}

// well returns an error that says what is wrong at url.
func well(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("no node answers at %s (%s): is it running, and is that its --admin address?", url, problem.Cause(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, problem.Read(resp).Detail)
	}
	return nil
}
