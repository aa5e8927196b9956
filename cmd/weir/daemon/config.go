package daemon

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/capacity/durable"
	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/cmd/weir/api"
	"weir/cmd/weir/ask"
	"weir/cmd/weir/auth"
	"weir/cmd/weir/bind"
	"weir/cmd/weir/certs"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/config"
	"weir/cmd/weir/console"
	"weir/cmd/weir/drain"
	"weir/cmd/weir/hook"
	"weir/cmd/weir/invite"
	"weir/cmd/weir/logs"
	"weir/cmd/weir/policies"
	"weir/cmd/weir/spans"
	"weir/dht"
	"weir/dht/directory"
	"weir/dht/overlay"
	"weir/sfu"
	"weir/sfu/proxied"
	"weir/sfu/rights"
	"weir/sfu/whip"
)

// The default ports of weir node; see bind.Free for the choice if they are taken.
const (
	defaultHTTP  = "127.0.0.1:8080"
	defaultMedia = "8082"
)

// Command is weir node.
func Command() *cli.Command {
	return &cli.Command{
		Name:  "node",
		Usage: "run a node",
		Description: "Runs until it is told to end (SIGTERM, Ctrl-C): then it takes nothing new, waits for\n" +
			"its sessions up to --stop-timeout, and ends at once at a second signal. The first\n" +
			"node of a network needs no --bootstrap; every other names one or more that are up\n" +
			"(any one suffices, and all are tried again for ever). A default port that is taken\n" +
			"gives way to the next free one, which the log tells; one asked for by name does not.",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: config.FlagName, Usage: "`FILE` of settings, YAML, whose keys are the names of these flags; environment and flags are stronger; read again at SIGHUP", EnvVars: cmdline.Env("CONFIG")},
			&cli.BoolFlag{Name: "dev", Usage: "a one-node network on loopback: console on http://" + defaultHTTP, EnvVars: cmdline.Env("DEV")},
			&cli.StringSliceFlag{Name: "listen", Usage: "libp2p `MULTIADDR` to listen on, TCP or QUIC; repeatable", DefaultText: fmt.Sprintf("port %d of 127.0.0.1, both", bind.DefaultPort), EnvVars: cmdline.Env("LISTEN")},
			&cli.StringSliceFlag{Name: "bootstrap", Usage: "`MULTIADDR` of a node of the network, with /p2p/ID; repeatable", EnvVars: cmdline.Env("BOOTSTRAP")},
			&cli.StringSliceFlag{Name: "seed", Usage: "`HOST:PORT` where nodes of the network listen by TCP, such as a headless service's name, all of whose addresses are tried; its peer IDs are taken on trust; repeatable", EnvVars: cmdline.Env("SEED")},
			&cli.StringFlag{Name: "join", Usage: "`TOKEN` of weir network invite: stands for --bootstrap, --network, --operator and --discovery", EnvVars: cmdline.Env("JOIN")},
			&cli.StringFlag{Name: "network", Usage: "`NAME` of the network; nodes of different networks do not meet", Value: api.DefaultNetwork, EnvVars: cmdline.Env("NETWORK")},
			&cli.StringFlag{Name: "http", Usage: "`HOST:PORT` of WHIP, WHEP and the console", Value: defaultHTTP, EnvVars: cmdline.Env("HTTP")},
			&cli.StringFlag{Name: "console", Usage: "`MODE` of the pages on --http: local (this machine sees the network, others get player and publisher), public (all clients see it) or off", Value: string(console.Local), EnvVars: cmdline.Env("CONSOLE")},
			&cli.StringSliceFlag{Name: "embed-origins", Usage: "`ORIGIN` whose pages may frame /embed/NAME, such as https://www.example.org or https://*.example.org; repeatable; or self, none or *", DefaultText: "those of --cors-origin", EnvVars: cmdline.Env("EMBED_ORIGINS")},
			&cli.StringFlag{Name: "public-url", Usage: "base `URL` under which clients reach --http, if it is another", EnvVars: cmdline.Env("PUBLIC_URL")},
			&cli.StringSliceFlag{Name: "trusted-proxy", Usage: "`CIDR` of reverse proxies in front of --http, whose X-Forwarded-For, -Proto and -Host are believed; repeatable", EnvVars: cmdline.Env("TRUSTED_PROXY")},
			&cli.BoolFlag{Name: "proxy-protocol", Usage: "--trusted-proxy begin each connection to --http with a PROXY header, version 1 or 2", EnvVars: cmdline.Env("PROXY_PROTOCOL")},
			&cli.StringSliceFlag{Name: "cors-origin", Usage: "`ORIGIN` whose pages may publish and view, such as https://www.example.org; repeatable", DefaultText: "any", EnvVars: cmdline.Env("CORS_ORIGIN")},
			&cli.StringFlag{Name: "admin", Usage: "`HOST:PORT` of the admin API", Value: api.DefaultAdmin, EnvVars: cmdline.Env("ADMIN")},
			&cli.StringFlag{Name: "metrics", Usage: "`HOST:PORT` that serves /metrics alone, under any host name", DefaultText: "only at --admin", EnvVars: cmdline.Env("METRICS")},
			&cli.StringFlag{Name: "media-port", Usage: "UDP `[HOST:]PORT` of all media, and TCP for clients whose UDP is blocked; without HOST that of --http", Value: defaultMedia, EnvVars: cmdline.Env("MEDIA_PORT")},
			&cli.StringFlag{Name: "public-ip", Usage: "`IP` at which others reach the ports of media and libp2p, if a NAT in front of this machine maps it one to one", EnvVars: cmdline.Env("PUBLIC_IP")},
			&cli.StringFlag{Name: "data-dir", Usage: "`DIR` of the identity and of remembered peers", Value: cmdline.DefaultDataDir(), EnvVars: cmdline.Env("DATA_DIR")},
			&cli.StringFlag{Name: "name", Usage: "`NAME` by which people know the node; letters, digits, _ . and -", DefaultText: "the machine's", EnvVars: cmdline.Env("NAME")},
			&cli.StringFlag{Name: "region", Usage: "`LABEL` of where the node is", EnvVars: cmdline.Env("REGION")},
			&cli.StringFlag{Name: "zone", Usage: "`LABEL` within the region", EnvVars: cmdline.Env("ZONE")},
			&cli.IntFlag{Name: "session-limit", Usage: "limit of WHIP and WHEP `SESSIONS`; 0: no limit", Value: 500, EnvVars: cmdline.Env("SESSION_LIMIT")},
			&cli.IntFlag{Name: "address-sessions", Usage: "limit of `SESSIONS` of one client's address, of IPv6 its /64, at a time; 0: no limit", EnvVars: cmdline.Env("ADDRESS_SESSIONS")},
			&cli.IntFlag{Name: "stream-limit", Usage: "limit of `STREAMS` carried; 0: no limit", EnvVars: cmdline.Env("STREAM_LIMIT")},
			&cli.StringFlag{Name: "uplink-limit", Usage: "egress limit, for example 800mbps; default: the network card's speed", EnvVars: cmdline.Env("UPLINK_LIMIT")},
			&cli.Int64Flag{Name: "packet-limit", Usage: "limit of `PACKETS` sent per second; 0: no limit", DefaultText: "50000 for each core", EnvVars: cmdline.Env("PACKET_LIMIT")},
			&cli.Float64Flag{Name: "cpu-limit", Usage: "`SHARE` of the CPU, 0 to 1, that counts as exhausted; 0: CPU is not counted", Value: 1, EnvVars: cmdline.Env("CPU_LIMIT")},
			&cli.DurationFlag{Name: "delay-limit", Usage: "how late packets may be served before nothing more is taken; 0: not counted", Value: ledger.DefaultDelayLimit, EnvVars: cmdline.Env("DELAY_LIMIT")},
			&cli.StringFlag{Name: "overflow", Usage: "what a full node does with a client: redirect, relay or refuse", Value: string(sfu.Redirect), EnvVars: cmdline.Env("OVERFLOW")},
			&cli.IntFlag{Name: "fanout", Usage: "most cascade `PULLS` of one stream, if the policy in force does not say fewer", DefaultText: "as many as the policy says", EnvVars: cmdline.Env("FANOUT")},
			&cli.DurationFlag{Name: "linger", Usage: "how long a relayed stream without viewers is kept", Value: defaultLinger, EnvVars: cmdline.Env("LINGER")},
			&cli.StringFlag{Name: "policy", Usage: "`FILE` of the policy, read again when it changes; default: the built-in one", EnvVars: cmdline.Env("POLICY")},
			&cli.StringFlag{Name: "operator", Usage: "`ID` of the operator whose signed policies this node takes; weir policy key prints it", EnvVars: cmdline.Env("OPERATOR")},
			&cli.StringFlag{Name: "provision-command", Usage: "`CMD` for sh -c that starts a server when no node has room, given JSON on standard input; see cmd/weir/hooks", EnvVars: cmdline.Env("PROVISION_COMMAND")},
			&cli.StringFlag{Name: "provision-url", Usage: "`URL` to post that JSON to instead", EnvVars: cmdline.Env("PROVISION_URL")},
			&cli.StringSliceFlag{Name: "provision-region", Usage: "`REGION` in which this node has servers started; repeatable; default: its own", EnvVars: cmdline.Env("PROVISION_REGION")},
			&cli.StringFlag{Name: "release-command", Usage: "`CMD` for sh -c that takes this node's server away once it is idle under the policy's strategy binpack", EnvVars: cmdline.Env("RELEASE_COMMAND")},
			&cli.StringFlag{Name: "release-url", Usage: "`URL` to post the JSON to instead", EnvVars: cmdline.Env("RELEASE_URL")},
			&cli.StringFlag{Name: "event-command", Usage: "`CMD` for sh -c that is given each event of a stream or session as JSON on standard input and as WEIR_EVENT_… in its environment; see cmd/weir/hooks", EnvVars: cmdline.Env("EVENT_COMMAND")},
			&cli.StringFlag{Name: "event-url", Usage: "`URL` to post that JSON to instead", EnvVars: cmdline.Env("EVENT_URL")},
			&cli.StringFlag{Name: "event-key", Usage: "`FILE` with a key on each line, by which what is posted is signed (HMAC-SHA256); read again when it changes", EnvVars: cmdline.Env("EVENT_KEY")},
			&cli.StringFlag{Name: "event-kinds", Usage: "`KINDS` of events to hand over, with commas between, such as stream,session.opened or all; weir events --help lists them", DefaultText: "those of streams, sessions and their media", EnvVars: cmdline.Env("EVENT_KINDS")},
			&cli.DurationFlag{Name: "hook-timeout", Usage: "how long these commands and URLs may take", Value: hook.DefaultTimeout, EnvVars: cmdline.Env("HOOK_TIMEOUT")},
			&cli.DurationFlag{Name: "stop-timeout", Usage: "how long a node that is told to end (SIGTERM, Ctrl-C) waits for its sessions; 0: not at all", Value: defaultStopTimeout, EnvVars: cmdline.Env("STOP_TIMEOUT")},
			&cli.StringFlag{Name: "ready-file", Usage: "`FILE` to write the real addresses to, as JSON, once ready", EnvVars: cmdline.Env("READY_FILE")},
			&cli.BoolFlag{Name: "allow-private", Usage: "let other nodes' records lead to private addresses (10.x, 192.168.x, 100.64.x, fd…) though this node has a public one", EnvVars: cmdline.Env("ALLOW_PRIVATE")},
			&cli.BoolFlag{Name: "insecure-open", Usage: "allow addresses that other machines can reach, though these are all let in", EnvVars: cmdline.Env("INSECURE_OPEN")},
			&cli.StringFlag{Name: "log-level", Usage: "debug, info, warn or error", Value: "info", EnvVars: cmdline.Env("LOG_LEVEL")},
			&cli.StringFlag{Name: "log-format", Usage: "text or json", Value: "text", EnvVars: cmdline.Env("LOG_FORMAT")},
		}, slices.Concat(certs.Flags(), auth.Flags(), ask.DiscoveryFlags(), spans.Flags())...),
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return cmdline.BadInput(fmt.Errorf("weir node takes no arguments, but got %q", c.Args().First()))
			}
			hangups := listenForHangup()
			defer hangups.stop()
			l, err := settingsOf(c).Load()
			if err != nil {
				return cmdline.BadInput(err)
			}
			logs.Quiet()(l.cfg.log)
			n, err := newNode(l.cfg)
			if err != nil {
				return err
			}
			n.hangups = hangups
			return n.runUntilStopped(c.Context)
		},
	}
}

// nodeConfig is weir node's flags, checked.
type nodeConfig struct {
	network   string
	listen    []multiaddr.Multiaddr
	given     given
	devDir    bool // the data directory is --dev's own
	bootstrap []string
	seeds     []overlay.Seed
	discovery directory.Mode
	servers   *directory.ServerList // nil where there is none
	http      string
	console   console.Mode
	embed     []string // sources of frame-ancestors; nil: no embed page
	publicURL string
	publicIP  netip.Addr
	proxies   proxied.Trust
	proxyHead bool // --proxy-protocol
	origins   sfu.Origins
	admin     string
	metrics   string // "": only at --admin
	tls       *certs.Certificates
	redirect  string // "": no port redirects to https
	media     string
	dataDir   string
	name      string
	region    string
	zone      string
	live      tunable
	readyFile string

	policy   *policies.File
	operator peer.ID
	rights   *rights.Config // nil: no client needs a right
	open     bool           // --insecure-open
	private  bool           // --allow-private

	provision        hook.Hook // starts servers
	provisionRegions []string
	release          hook.Hook // removes this node's server
	events           hook.Hook // receives events
	eventKinds       map[event.Kind]bool
	eventKeys        *hook.SigningKeys // nil: requests are not signed
	tracing          spans.Config
	log              *slog.Logger
	level            *slog.LevelVar // the level of log

	// The sources of this configuration, for a reload. Zero in tests that set
	// flags by themselves.
	settings Sources
	loaded   []api.Setting
}

// tunable are the settings that may change while the node runs. They are in
// node.tuned, and are loaded each time they are needed.
type tunable struct {
	limits      limits
	perClient   int // --address-sessions
	cpuLimit    float64
	delayLimit  duration
	overflow    sfu.Overflow
	fanout      int
	linger      duration
	stopTimeout duration
	level       slog.Level
}

func nodeConfigOf(c *cli.Context) (nodeConfig, error) {
	if err := invite.Apply(c); err != nil {
		return nodeConfig{}, err
	}
	cfg := nodeConfig{
		network: c.String("network"), http: c.String("http"), admin: c.String("admin"), metrics: c.String("metrics"), media: c.String("media-port"),
		redirect: c.String("http-redirect"), dataDir: c.String("data-dir"), region: c.String("region"), zone: c.String("zone"),
		bootstrap: c.StringSlice("bootstrap"), live: tunable{cpuLimit: c.Float64("cpu-limit"), delayLimit: c.Duration("delay-limit"), fanout: c.Int("fanout"), linger: c.Duration("linger")}, readyFile: c.String("ready-file"),
		open: c.Bool("insecure-open"), private: c.Bool("allow-private"),
	}
	cfg.given = given{listen: c.IsSet("listen"), http: c.IsSet("http"), admin: c.IsSet("admin"), media: c.IsSet("media-port")}
	if c.Bool("dev") {
		if cfg.devDir = !c.IsSet("data-dir"); cfg.devDir {
			cfg.dataDir = filepath.Join(cfg.dataDir, "dev")
		}
		if !c.IsSet("network") {
			cfg.network = "dev"
		}
	}
	for _, s := range c.StringSlice("listen") {
		a, err := multiaddr.NewMultiaddr(s)
		if err != nil {
			return cfg, fmt.Errorf("--listen %s: %w; want for example /ip4/127.0.0.1/udp/4001/quic-v1", s, err)
		}
		cfg.listen = append(cfg.listen, a)
	}
	if !cfg.given.listen {
		cfg.listen = bind.Loopback(bind.DefaultPort)
	}
	for _, s := range cfg.bootstrap {
		if _, err := dht.ParseBootstrap(s); err != nil {
			return cfg, fmt.Errorf("--bootstrap %w", err)
		}
	}
	for _, s := range c.StringSlice("seed") {
		seed, err := overlay.ParseSeed(s)
		if err != nil {
			return cfg, fmt.Errorf("--seed: %w", err)
		}
		cfg.seeds = append(cfg.seeds, seed)
	}
	var err error
	if cfg.name = c.String("name"); cfg.name == "" {
		cfg.name = defaultName()
	} else if err := capacity.ValidName(cfg.name); err != nil {
		return cfg, fmt.Errorf("--name: %w", err)
	}
	if cfg.console, err = console.ParseMode(c.String("console")); err != nil {
		return cfg, err
	}
	if cfg.proxies, err = proxied.ParseTrust(c.StringSlice("trusted-proxy")); err != nil {
		return cfg, fmt.Errorf("--trusted-proxy: %w", err)
	}
	if cfg.proxyHead = c.Bool("proxy-protocol"); cfg.proxyHead && !cfg.proxies.Any() {
		return cfg, errors.New("--proxy-protocol: say by --trusted-proxy CIDR whose headers are believed")
	}
	if cfg.live.perClient = c.Int("address-sessions"); cfg.live.perClient < 0 {
		return cfg, fmt.Errorf("--address-sessions %d: give 0 for no limit", cfg.live.perClient)
	}
	if cfg.origins, err = whip.ParseOrigins(c.StringSlice("cors-origin")); err != nil {
		return cfg, fmt.Errorf("--cors-origin %w", err)
	}
	framing := c.StringSlice("embed-origins")
	if len(framing) == 0 {
		framing = c.StringSlice("cors-origin")
	}
	if cfg.embed, err = console.Framing(framing); err != nil {
		return cfg, err
	}
	if cfg.live.overflow, err = whip.ParseOverflow(c.String("overflow")); err != nil {
		return cfg, fmt.Errorf("--overflow: %w", err)
	}
	if cfg.live.limits, err = limitsOf(c); err != nil {
		return cfg, err
	}
	if cfg.live.stopTimeout = c.Duration("stop-timeout"); cfg.live.stopTimeout < 0 || cfg.live.stopTimeout > drain.Max {
		return cfg, fmt.Errorf("--stop-timeout %v: want 0 for none, or up to %v", cfg.live.stopTimeout, drain.Max)
	}
	if c.IsSet("fanout") && cfg.live.fanout < 1 {
		return cfg, fmt.Errorf("--fanout %d: want at least 1", cfg.live.fanout)
	}
	if cfg.live.linger < 0 {
		return cfg, fmt.Errorf("--linger %v: want 0 or more", cfg.live.linger)
	}
	cfg.level = &slog.LevelVar{}
	if cfg.log, err = logs.New(os.Stderr, cfg.level, c.String("log-level"), c.String("log-format")); err != nil {
		return cfg, err
	}
	cfg.live.level = cfg.level.Level()
	if cfg.tls, err = certs.Of(c, cfg.log); err != nil {
		return cfg, err
	}
	if cfg.publicURL, err = certs.PublicURLOf(c.String("public-url"), cfg.tls != nil); err != nil {
		return cfg, err
	}
	if err := cfg.onePort(); err != nil {
		return cfg, err
	}
	if cfg.tracing, err = spans.ConfigOf(c); err != nil {
		return cfg, err
	}
	if cfg.discovery, cfg.servers, err = ask.DiscoveryOf(c, cfg.log); err != nil {
		return cfg, err
	}
	if cfg.policy, err = policies.Open(c.String("policy"), cfg.log); err != nil {
		return cfg, err
	}
	if s := c.String("operator"); s != "" {
		if cfg.operator, err = peer.Decode(s); err != nil {
			return cfg, fmt.Errorf("--operator %s: want an ID such as weir policy key prints, 12D3Koo…", s)
		}
		if c.IsSet("policy") {
			return cfg, errors.New("--policy and --operator: a node takes its policy from a file or from the operator, not from both")
		}
	}
	if cfg.provision, err = hook.New("provision", c.String("provision-command"), c.String("provision-url"), c.Duration("hook-timeout"), cfg.log); err != nil {
		return cfg, err
	}
	if cfg.release, err = hook.New("release", c.String("release-command"), c.String("release-url"), c.Duration("hook-timeout"), cfg.log); err != nil {
		return cfg, err
	}
	if cfg.events, err = hook.New("event", c.String("event-command"), c.String("event-url"), c.Duration("hook-timeout"), cfg.log); err != nil {
		return cfg, err
	}
	if !cfg.events.Given() && c.IsSet("event-kinds") {
		return cfg, errors.New("--event-kinds: give --event-command or --event-url too")
	}
	if cfg.eventKinds, err = hook.ParseEventKinds(c.String("event-kinds")); err != nil {
		return cfg, err
	}
	if path := c.String("event-key"); path != "" {
		if cfg.events.URL == "" {
			return cfg, errors.New("--event-key signs what is posted to --event-url: give that too")
		}
		if cfg.eventKeys, err = hook.NewSigningKeys(path, cfg.log); err != nil {
			return cfg, fmt.Errorf("--event-key: %w", err)
		}
	}
	if c.IsSet("provision-region") && !cfg.provision.Given() {
		return cfg, errors.New("--provision-region: give --provision-command or --provision-url too")
	}
	if cfg.provisionRegions, err = provisionRegions(c.StringSlice("provision-region"), cfg.region); err != nil {
		return cfg, err
	}
	if cfg.metrics != "" {
		if _, _, err := net.SplitHostPort(cfg.metrics); err != nil {
			return cfg, fmt.Errorf("--metrics %s: want HOST:PORT", cfg.metrics)
		}
	}
	if cfg.media, err = mediaAddr(cfg.media, cfg.http); err != nil {
		return cfg, err
	}
	if s := c.String("public-ip"); s != "" {
		if cfg.publicIP, err = netip.ParseAddr(s); err != nil || cfg.publicIP.IsUnspecified() || cfg.publicIP.Zone() != "" {
			return cfg, fmt.Errorf("--public-ip %s: want an address such as 203.0.113.7, without a port", s)
		}
		cfg.publicIP = cfg.publicIP.Unmap()
	}
	if cfg.rights, err = auth.ConfigOf(c, cfg.network); err != nil {
		return cfg, err
	}
	if !cfg.open {
		err = cfg.guarded()
	}
	return cfg, err
}

// mediaAddr completes --media-port with the host of --http.
func mediaAddr(media, http string) (string, error) {
	if _, err := strconv.ParseUint(media, 10, 16); err != nil {
		if _, _, err := net.SplitHostPort(media); err != nil {
			return "", fmt.Errorf("--media-port %s: want PORT or HOST:PORT", media)
		}
		return media, nil
	}
	host, _, err := net.SplitHostPort(http)
	if err != nil {
		return "", fmt.Errorf("--http %s: %w; want HOST:PORT", http, err)
	}
	return net.JoinHostPort(host, media), nil
}

// writeReady writes info atomically: a reader sees all of it or nothing.
func writeReady(path string, info api.Ready) error {
	b, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.Replace(path, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("ready file: %w", err)
	}
	return nil
}
