package auth

import (
	"errors"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/doctor"
	"weir/cmd/weir/term"
	"weir/dht/inspect"
	"weir/sfu/rights"
)

// Flags configure the right to publish and to view.
func Flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "auth-keys", Usage: "`FILE` of the keys whose tokens let clients in, a JWK set as weir token key prints; read again when it changes", EnvVars: cmdline.Env("AUTH_KEYS")},
		&cli.StringFlag{Name: "auth-jwks", Usage: "`URL` of such keys, those of --auth-keys beside it", EnvVars: cmdline.Env("AUTH_JWKS")},
		&cli.DurationFlag{Name: "auth-jwks-refresh", Usage: "how often that URL is asked: a key that is gone there ends its sessions", Value: 5 * time.Second, EnvVars: cmdline.Env("AUTH_JWKS_REFRESH")},
		&cli.StringFlag{Name: "auth-hook", Usage: "`URL` that is asked by POST of JSON whether a client may publish or view; with keys both must allow it", EnvVars: cmdline.Env("AUTH_HOOK")},
		&cli.DurationFlag{Name: "auth-hook-timeout", Usage: "how long that may take", Value: 5 * time.Second, EnvVars: cmdline.Env("AUTH_HOOK_TIMEOUT")},
		&cli.IntFlag{Name: "auth-sessions", Usage: "most `SESSIONS` of one token at a time here, if it does not say fewer; 0: as many as it says", EnvVars: cmdline.Env("AUTH_SESSIONS")},
		&cli.StringFlag{Name: "ticket-secret", Usage: "`FILE` of a secret that the operator's nodes share, as weir token secret makes: clients keep their right when one node sends them to another", EnvVars: cmdline.Env("TICKET_SECRET")},
	}
}

// ConfigOf reads [Flags]; nil if no client needs a right. The files are
// read, and their mistakes reported, before the node begins.
func ConfigOf(c *cli.Context, network string) (*rights.Config, error) {
	cfg := &rights.Config{
		Network: network, Keys: c.String("auth-keys"), JWKS: c.String("auth-jwks"), Hook: c.String("auth-hook"), Tickets: c.String("ticket-secret"),
		Refresh: c.Duration("auth-jwks-refresh"), HookTimeout: c.Duration("auth-hook-timeout"), Sessions: c.Int("auth-sessions"),
	}
	if cfg.Sessions < 0 {
		return nil, errors.New("--auth-sessions: want 0 for no bound, or more")
	}
	if cfg.Keys == "" && cfg.JWKS == "" && cfg.Hook == "" && cfg.Tickets == "" {
		if c.IsSet("auth-sessions") {
			return nil, errors.New("--auth-sessions is about tokens: give --auth-keys, --auth-jwks or --auth-hook too")
		}
		return nil, nil
	}
	if c.Duration("auth-jwks-refresh") <= 0 || c.Duration("auth-hook-timeout") <= 0 {
		return nil, errors.New("--auth-jwks-refresh and --auth-hook-timeout: want more than 0")
	}
	for _, one := range []struct {
		flag string
		only rights.Config
	}{
		{"--auth-keys", rights.Config{Keys: cfg.Keys}},
		{"--ticket-secret", rights.Config{Tickets: cfg.Tickets}},
		{"--auth-jwks", rights.Config{JWKS: cfg.JWKS, Refresh: cfg.Refresh}},
		{"--auth-hook", rights.Config{Hook: cfg.Hook, HookTimeout: cfg.HookTimeout}},
	} {
		if one.only.Keys+one.only.Tickets+one.only.JWKS+one.only.Hook == "" {
			continue
		}
		if _, err := rights.New(one.only); err != nil {
			return nil, fmt.Errorf("%s: %w", one.flag, advised(err))
		}
	}
	return cfg, nil
}

// Check checks that clients with a right are admitted. handsOn is whether
// clients keep their right at other nodes, or are not sent there.
func Check(s rights.Status, handsOn bool, now time.Time) doctor.Check {
	c := doctor.Check{Name: "rights", Outcome: inspect.Fine, Seen: "are asked for"}
	keys := 0
	for i, src := range s.Sources {
		keys += src.Keys
		what, flag := "the file of keys", "--auth-keys"
		if src.Name == "jwks" {
			what, flag = "the URL of keys", "--auth-jwks"
		}
		c.Seen += map[bool]string{true: ": ", false: ", "}[i == 0] + term.Count(src.Keys, "key", "keys") + " of " + what
		switch {
		case src.Read.IsZero():
			c.Outcome, c.Do = inspect.Failure, "see that "+flag+" can be reached from this machine and serves a JWK set: weir events --kind keys says what is wrong"
			c.Seen += ", which has never been read: it admits no client"
			return c
		case src.Failing:
			c.Outcome, c.Do = inspect.Warning, "mend what "+flag+" names: weir events --kind keys says what is wrong"
			c.Seen += fmt.Sprintf(", which cannot be used as it is now; in force is what it said %v ago", now.Sub(src.Read).Round(time.Second))
		}
	}
	switch {
	case len(s.Sources) > 0 && keys == 0:
		c.Outcome, c.Do = inspect.Failure, "put a key there: weir token key makes one"
		c.Seen += ": no token admits a client"
	case c.Outcome == inspect.Fine && !handsOn:
		c.Outcome, c.Do = inspect.Warning, "give all your nodes the same --ticket-secret, which weir token secret makes"
		c.Seen += "; a full node sends no client on, since another would not know its right"
	}
	return c
}
