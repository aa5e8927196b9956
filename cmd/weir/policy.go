package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/capacity/policy"
	"weir/capacity/signed"
	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/names"
	"weir/cmd/weir/policies"
	"weir/cmd/weir/term"
	"weir/dht/identity"
)

func policyCommand() *cli.Command {
	return &cli.Command{
		Name: "policy", Usage: "the heuristics by which nodes are chosen: check, fields, show, try, key, push, history",
		Subcommands: []*cli.Command{
			{
				Name: "check", Usage: "read a policy and point at what is wrong with it", ArgsUsage: "FILE",
				Description: "FILE is YAML; - is standard input. weir policy show prints one to begin with, and\nweir policy fields the names that expressions may use.",
				Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the policy as JSON"}},
				Action:      checkPolicy,
			},
			{
				Name: "fields", Usage: "the names that expressions may use, with types and units",
				Flags: []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
				Action: func(c *cli.Context) error {
					if c.Bool("json") {
						return term.PrintJSON(c, policy.Fields())
					}
					w := tabwriter.NewWriter(c.App.Writer, 0, 4, 2, ' ', 0)
					fmt.Fprintln(w, "NAME\tTYPE\tMEANING")
					for _, f := range policy.Fields() {
						fmt.Fprintf(w, "%s\t%s\t%s\n", f.Name, f.Type, f.Doc)
					}
					if err := w.Flush(); err != nil {
						return err
					}
					_, err := fmt.Fprintln(c.App.Writer, "\nme.… is our own record, with the same fields as r.…, the candidate's.\nOperators: + - * / ** == != < > <= >= and or not in contains startsWith endsWith ?:\nFunctions: abs ceil floor max min round")
					return err
				},
			},
			{
				Name: "show", Usage: "the policy in force at a running node, or the built-in one", Flags: ask.Flags(
					&cli.BoolFlag{Name: "default", Usage: "the built-in one; no node is asked"},
				),
				Action: showPolicy,
			},
			tryPolicyCommand(),
			{
				Name: "key", Usage: "the operator's key in DIR, made if there is none, and its ID", ArgsUsage: "DIR",
				Description: "A holder of the key can change the policy of every node that was started with\n--operator ID. Keep it off the nodes.",
				Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
				Action:      policyKey,
			},
			{
				Name: "push", Usage: "sign a policy and give it to the whole network", ArgsUsage: "FILE", Flags: ask.Flags(
					&cli.StringFlag{Name: "key", Usage: "`DIR` of the operator's key", Required: true, EnvVars: cmdline.Env("OPERATOR_KEY")},
					&cli.Uint64Flag{Name: "as", Usage: "`VERSION` to give it", DefaultText: "one above what the node holds, whatever the file says"},
				),
				Description: "Every node takes it at once, and no session is touched. To go back, push\nan older file again: it gets a new version.",
				Action:      pushPolicy,
			},
			{
				Name: "history", Usage: "the policies that a node has been given, newest first", Flags: ask.Flags(),
				Action: policyHistory,
			},
		},
	}
}

func policyKey(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir policy key wants one DIR"))
	}
	key, err := identity.Load(c.Args().First())
	if err != nil {
		return err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return term.PrintJSON(c, map[string]peer.ID{"operator": id})
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s\nstart every node with --operator %s\n", id, id)
	return err
}

func pushPolicy(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir policy push wants one FILE"))
	}
	dir := c.String("key")
	if _, err := os.Stat(filepath.Join(dir, "identity.key")); err != nil {
		return cmdline.BadInput(fmt.Errorf("--key %s: no key there; weir policy key %s makes one: %w", dir, dir, err))
	}
	key, err := identity.Load(dir)
	if err != nil {
		return cmdline.BadInput(err)
	}
	name := c.Args().First()
	text, err := policies.ReadText(name, c.App.Reader)
	if err != nil {
		return cmdline.BadInput(err)
	}
	version := c.Uint64("as")
	if !c.IsSet("as") {
		var held policy.Policy
		if err := ask.Fetch(c, "/policy", &held); err != nil {
			return err
		}
		version = held.Version + 1
	}
	sealed, err := signed.SealPolicy(name, text, version, time.Now(), key)
	if err != nil {
		return cmdline.BadInput(err)
	}
	var applied api.PolicyVersion
	if err := ask.Post(c, "/policy", sealed, &applied); err != nil {
		return err
	}
	if c.Bool("json") {
		return term.PrintJSON(c, applied)
	}
	_, err = fmt.Fprintf(c.App.Writer, "policy %q is version %d, sum %s; the node has applied it and tells the others\n", applied.Name, applied.Version, applied.Sum)
	return err
}

func policyHistory(c *cli.Context) error {
	var list []api.PolicyVersion
	if done, err := ask.Get(c, "/policy/history", &list); done {
		return err
	}
	term.Table(term.Of(c), "VERSION\tNAME\tIN FORCE\tSIGNED\tBY\tSUM", func(row func(...any)) {
		for _, p := range list {
			mark := term.Plain.Of("-")
			if p.InForce {
				mark = term.Good.Of("in force")
			}
			row(p.Version, p.Name, mark, p.Issued.Local().Format(time.DateTime), names.Short(p.Operator), p.Sum)
		}
	})
	return nil
}

func checkPolicy(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir policy check wants one FILE, or - for standard input"))
	}
	name := c.Args().First()
	text, err := policies.ReadText(name, c.App.Reader)
	if err != nil {
		return cmdline.BadInput(err)
	}
	compiled, err := policy.Parse(name, text)
	if err != nil {
		return cmdline.BadInput(err)
	}
	p := compiled.Policy()
	if c.Bool("json") {
		return term.PrintJSON(c, p)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s: policy %q, version %d: %d rules and %d terms, ok\n", name, p.Name, p.Version, len(p.Filter), len(p.Score))
	return err
}

func showPolicy(c *cli.Context) error {
	p := policy.Default()
	if !c.Bool("default") {
		if done, err := ask.Get(c, "/policy", &p); done {
			return err
		}
	} else if c.Bool("json") {
		return term.PrintJSON(c, p)
	}
	text, err := p.Text()
	if err != nil {
		return err
	}
	_, err = c.App.Writer.Write(text)
	return err
}
