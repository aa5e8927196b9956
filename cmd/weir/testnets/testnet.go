package testnets

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/hook"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
	"weir/dht/directory"
	"weir/testnet"
)

// defaultTestnetDir is the default directory of a testnet's state, below the
// working directory.
const defaultTestnetDir = ".testnet"

func testnetFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "dir", Usage: "`DIR` of the testnet's state, logs and data", Value: defaultTestnetDir, EnvVars: cmdline.Env("TESTNET_DIR")},
	}, more...)
}

// testnetTLS has the nodes speak https.
func testnetTLS() cli.Flag {
	return &cli.BoolFlag{Name: "tls", Usage: "https, by a development CA that is made in DIR and kept there", EnvVars: cmdline.Env("TESTNET_TLS")}
}

// testnetDiscovery selects the discovery mode; testnet makes the list of servers.
func testnetDiscovery() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "discovery", Usage: "who holds the records: kademlia, broker, pull or push", Value: string(directory.Kademlia), EnvVars: cmdline.Env("DISCOVERY")},
		&cli.IntFlag{Name: "brokers", Usage: "with --discovery broker: the first `N` nodes are the brokers", DefaultText: "1"},
	}
}

func Command() *cli.Command {
	return &cli.Command{
		Name: "testnet", Usage: "many nodes on this machine: up, add, status, kill, down, demo",
		Description: "Runs real weir nodes on loopback, n1, n2 and so on. The others join by n1.\n" +
			"Each has its log and its data in DIR, where testnet.json tells of them all.",
		Subcommands: []*cli.Command{
			{
				Name: "up", Usage: "start nodes, and return when each sees the records of all", ArgsUsage: "[-- NODE FLAGS…]",
				Description: "Flags after -- are given to every node, for example\n" +
					"  weir testnet up -n 5 -- --session-limit 10 --log-level debug",
				Flags: testnetFlags(append(testnetDiscovery(), testnetTLS(),
					&cli.IntFlag{Name: "nodes", Aliases: []string{"n"}, Usage: "how many `NODES`", Value: 5, EnvVars: cmdline.Env("NODES")},
					&cli.IntFlag{Name: "region-count", Usage: "nodes are in one of `R` regions in turn, r1 to rR", Value: 1, EnvVars: cmdline.Env("REGION_COUNT")},
					&cli.BoolFlag{Name: "force", Usage: "also if this machine seems to have no room for so many nodes"},
					&cli.DurationFlag{Name: "timeout", Usage: "give up after `D`, and leave nothing running", Value: time.Minute, EnvVars: cmdline.Env("TESTNET_TIMEOUT")},
					&cli.BoolFlag{Name: "json", Usage: "print what status --json prints"}, term.WideFlag(),
					&cli.BoolFlag{Name: "provision", Usage: "n1 starts further nodes when none has room, and idle ones end under the policy's strategy binpack", EnvVars: cmdline.Env("TESTNET_PROVISION")},
				)...),
				Action: testnetUp,
			},
			{
				Name: "add", Usage: "start further nodes in a testnet that runs", ArgsUsage: "[-] [-- NODE FLAGS…]",
				Description: "With -, standard input has the JSON of a provisioning hook: region and join.\nThat is how weir testnet up --provision starts nodes.",
				Flags: testnetFlags(
					&cli.IntFlag{Name: "nodes", Aliases: []string{"n"}, Usage: "how many `NODES`", Value: 1},
					&cli.BoolFlag{Name: "force", Usage: "also if this machine seems to have no room for so many"},
					&cli.StringFlag{Name: "region", Usage: "`LABEL` of where they are; default: where n1 is"},
					&cli.StringFlag{Name: "join", Usage: "`TOKEN` of weir network invite; default: by a node that runs"},
				),
				Action: testnetAdd,
			},
			{
				Name: "retire", Usage: "note that a node ends by itself", ArgsUsage: "NODE | -",
				Description: "With -, standard input has the JSON of a release hook.",
				Flags:       testnetFlags(), Action: testnetRetire,
			},
			{Name: "status", Usage: "what the nodes are doing", Flags: testnetFlags(&cli.BoolFlag{Name: "json", Usage: "print an array with an object for each node"}, term.WideFlag()), Action: testnetStatus},
			{
				Name: "kill", Usage: "end a node, or send it another signal", ArgsUsage: "NODE",
				Flags:  testnetFlags(&cli.StringFlag{Name: "signal", Usage: "`SIGNAL` to send: KILL, TERM, INT, STOP, CONT, QUIT, HUP, USR1 or USR2", Value: "KILL"}),
				Action: testnetKill,
			},
			{Name: "down", Usage: "end all nodes; logs and data stay", Flags: testnetFlags(), Action: testnetDown},
			demoCommand(),
			cmdline.MovedToLab("sim", "weir-lab sim"),
		},
	}
}

// testnetExit gives an error of package testnet its exit code.
func testnetExit(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, testnet.ErrNone):
		return cli.Exit(err.Error()+": start one with weir testnet up", cmdline.ExitConnection)
	case errors.Is(err, testnet.ErrInput):
		return cmdline.BadInput(err)
	}
	return err
}

func testnetUp(c *cli.Context) error {
	began := time.Now()
	extra := c.Args().Slice()
	if len(extra) > 0 && !strings.HasPrefix(extra[0], "-") {
		return cmdline.BadInput(fmt.Errorf("weir testnet up takes no argument %q; flags for every node go after --", extra[0]))
	}
	every, first := extra, []string(nil)
	if c.Bool("provision") {
		add, retire, err := testnetHooks(c.String("dir"))
		if err != nil {
			return err
		}
		every = append([]string{"--release-command", retire}, extra...)
		first = append([]string{"--provision-command", add}, extra...)
	}
	line := term.NewProgress(c.App.ErrWriter)
	defer line.Close()
	n, err := testnet.Up(c.Context, testnet.Config{
		Force: c.Bool("force"),
		Progress: func(p testnet.Progress) {
			line.Set("of %d nodes %d started, %d ready, %d see all others", p.Nodes, p.Started, p.Ready, p.Seeing)
		},
		Dir: c.String("dir"), N: c.Int("nodes"), TLS: c.Bool("tls"), Regions: c.Int("region-count"), Timeout: c.Duration("timeout"),
		Discovery: directory.Mode(c.String("discovery")), Brokers: c.Int("brokers"),
		NodeFlags: func(i int) []string {
			if i == 1 && first != nil {
				return first
			}
			return every
		},
		AddFlags: every,
		Log:      slog.New(slog.NewTextHandler(line, nil)),
		Detach:   true,
	})
	line.Close()
	if c.Context.Err() != nil && err != nil {
		return cli.Exit(fmt.Sprintf("interrupted: %v; what had been started was ended", err), cmdline.ExitFailure)
	}
	if err != nil {
		return testnetExit(err)
	}
	took := time.Since(began)
	all := n.Status(c.Context)
	if c.Bool("json") {
		return term.PrintJSON(c, all)
	}
	printTestnet(c, all)
	w, n1 := c.App.Writer, n.Node("n1")
	fmt.Fprintf(w, "\n%d nodes up in %.1f s; each sees the records of all\n\n", len(all), took.Seconds())
	fmt.Fprintf(w, "console   %s\n", n1.HTTP)
	fmt.Fprintf(w, "inspect   weir records list --admin %s\n", strings.TrimPrefix(n1.Admin, "http://"))
	fmt.Fprintf(w, "publish   weir publish --pattern%s %s/whip/demo\n", trustFlag(n), n1.HTTP)
	fmt.Fprintf(w, "end       weir testnet down%s\n", dirFlag(c))
	printTrust(w, n)
	return nil
}

// trustFlag is the --ca that publish and view need for the nodes of n.
func trustFlag(n *testnet.Network) string {
	if n.Authority() == "" {
		return ""
	}
	return " --ca " + cmdline.ShellWord(n.Authority())
}

// printTrust prints how programs can trust the nodes of n, if they use https.
func printTrust(w io.Writer, n *testnet.Network) {
	ca := n.Authority()
	if ca == "" {
		return
	}
	file := cmdline.ShellWord(ca)
	fmt.Fprintf(w, "\nThe nodes speak https by a development CA that is good for localhost only. To trust it:\n\n")
	fmt.Fprintf(w, "weir         export SSL_CERT_FILE=%s\n", file)
	fmt.Fprintf(w, "curl         export CURL_CA_BUNDLE=%s\n", file)
	fmt.Fprintf(w, "Chromium     mkdir -p ~/.pki/nssdb && certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n weir-development -i %s\n", file)
	fmt.Fprintf(w, "Firefox      Settings, Privacy & Security, View Certificates, Authorities, Import: %s\n", ca)
}

// dirFlag is the --dir to repeat for a further command.
func dirFlag(c *cli.Context) string {
	if dir := c.String("dir"); dir != defaultTestnetDir {
		return " --dir " + dir
	}
	return ""
}

func testnetStatus(c *cli.Context) error {
	n, err := openTestnet(c, 0)
	if err != nil {
		return err
	}
	all := n.Status(c.Context)
	if c.Bool("json") {
		return term.PrintJSON(c, all)
	}
	printTestnet(c, all)
	return nil
}

// openTestnet opens the testnet in --dir, for a command with args arguments,
// none or one.
func openTestnet(c *cli.Context, args int) (*testnet.Network, error) {
	if c.NArg() != args {
		return nil, cmdline.BadInput(fmt.Errorf("weir testnet %s takes %s, but got %q", c.Command.Name, []string{"no argument", "the name of one node"}[args], c.Args().Slice()))
	}
	n, err := testnet.Open(c.String("dir"))
	return n, testnetExit(err)
}

func printTestnet(c *cli.Context, all []testnet.NodeStatus) {
	term.Table(term.Of(c), "NAME\tPROCESS\tSTATE\tSESSIONS\tSTREAMS\tLINKS\tRECORDS SEEN\tADMIN\tHTTP\tREGION\tPID\tPEER", func(row func(...any)) {
		for _, s := range all {
			process := term.Good.Of(s.State)
			if s.State != testnet.Running {
				process.Style = term.Bad
			}
			state, sessions, streams, links, seen := any("-"), "-", any("-"), any("-"), "-"
			if s.Load != "" {
				state, sessions, streams, links = term.StateNamed(s.Load), term.Used(s.Sessions.Used, s.Sessions.Limit), s.Streams, s.Links
				seen = fmt.Sprintf("%d of %d", s.Seen, len(all))
			}
			row(term.Called(s.Name), process, state, sessions, streams, links, seen, strings.TrimPrefix(s.Admin, "http://"), s.HTTP, cmp.Or(s.Region, "-"), s.PID, names.Short(s.PeerID))
		}
	})
}

var signals = map[string]syscall.Signal{
	"KILL": syscall.SIGKILL, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT,
	"QUIT": syscall.SIGQUIT, "HUP": syscall.SIGHUP, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}

func testnetKill(c *cli.Context) error {
	name := strings.TrimPrefix(strings.ToUpper(c.String("signal")), "SIG")
	sig, ok := signals[name]
	if !ok {
		return cmdline.BadInput(fmt.Errorf("--signal %s: want KILL, TERM, INT, STOP, CONT, QUIT, HUP, USR1 or USR2", c.String("signal")))
	}
	n, err := openTestnet(c, 1)
	if err != nil {
		return err
	}
	node := c.Args().First()
	if sig == syscall.SIGKILL {
		err = n.Kill(node)
	} else {
		err = n.Signal(node, sig)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return cli.Exit(node+" does not run any more", cmdline.ExitFailure)
	}
	if err != nil {
		return testnetExit(err)
	}
	fmt.Fprintf(c.App.Writer, "%s: sent SIG%s to pid %d\n", node, name, n.Node(node).PID)
	return nil
}

func testnetDown(c *cli.Context) error {
	if _, err := testnet.Open(c.String("dir")); errors.Is(err, testnet.ErrNone) {
		fmt.Fprintf(c.App.Writer, "no testnet in %s: nothing to end\n", c.String("dir"))
		return nil
	}
	n, err := openTestnet(c, 0)
	if err != nil {
		return err
	}
	running := 0
	for _, node := range n.Nodes() {
		if n.Alive(node.Name) {
			running++
		}
	}
	began := time.Now()
	if err := n.Down(); err != nil {
		return testnetExit(err)
	}
	fmt.Fprintf(c.App.Writer, "%d of %d nodes ran and have ended, after %.1f s; logs are in %s\n", running, len(n.Nodes()), time.Since(began).Seconds(), n.Dir())
	return nil
}

// testnetHooks are the commands by which a testnet's nodes start another, and
// record that one ends.
func testnetHooks(dir string) (add, retire string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", "", err
	}
	command := func(what string) string {
		return fmt.Sprintf("exec %s testnet %s --dir %s -", cmdline.ShellWord(self), what, cmdline.ShellWord(dir))
	}
	return command("add"), command("retire"), nil
}

// readHookInput reads the JSON input of a hook.
func readHookInput(c *cli.Context) (hook.Input, error) {
	var in hook.Input
	r := c.App.Reader
	if r == nil {
		r = os.Stdin
	}
	if err := json.NewDecoder(io.LimitReader(r, hook.MaxOutput)).Decode(&in); err != nil {
		return in, cmdline.BadInput(fmt.Errorf("standard input: want the JSON of a hook: %w", err))
	}
	return in, nil
}

func testnetAdd(c *cli.Context) error {
	cfg := testnet.AddConfig{Force: c.Bool("force"), N: c.Int("nodes"), Region: c.String("region"), Join: c.String("join"), Flags: c.Args().Slice()}
	if c.Args().First() == "-" {
		in, err := readHookInput(c)
		if err != nil {
			return err
		}
		cfg.Region, cfg.Join, cfg.Flags = in.Region, in.Join, c.Args().Tail()
	} else if !c.IsSet("region") {
		n, err := testnet.Open(c.String("dir"))
		if err != nil {
			return testnetExit(err)
		}
		cfg.Region = n.Node("n1").Region
	}
	if len(cfg.Flags) > 0 && !strings.HasPrefix(cfg.Flags[0], "-") {
		return cmdline.BadInput(fmt.Errorf("weir testnet add takes no argument %q; flags of the nodes go after --", cfg.Flags[0]))
	}
	if cfg.N < 1 {
		return cmdline.BadInput(fmt.Errorf("-n %d: want at least 1", cfg.N))
	}
	added, err := testnet.Add(c.Context, c.String("dir"), cfg)
	for _, n := range added {
		fmt.Fprintf(c.App.Writer, "%s: pid %d, %s\n", n.Name, n.PID, n.HTTP)
	}
	return testnetExit(err)
}

func testnetRetire(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir testnet retire takes the name of one node, or - for the JSON of a hook"))
	}
	id := peer.ID("")
	if name := c.Args().First(); name != "-" {
		n, err := openTestnet(c, 1)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(n.Nodes(), func(o testnet.Node) bool { return o.Name == name })
		if i < 0 {
			return cmdline.BadInput(fmt.Errorf("no node %q", name))
		}
		id = n.Nodes()[i].PeerID
	} else {
		in, err := readHookInput(c)
		if err != nil {
			return err
		}
		id = in.PeerID
	}
	n, err := testnet.Retire(c.Context, c.String("dir"), id)
	if err != nil {
		return testnetExit(err)
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s is retired\n", n.Name)
	return err
}
