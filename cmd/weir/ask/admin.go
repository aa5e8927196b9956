package ask

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/names"
	"weir/cmd/weir/term"
	"weir/sfu/problem"
)

// adminTimeout bounds one request to the admin API.
const adminTimeout = 10 * time.Second

// Flags are the flags of every command that asks a running node.
func Flags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "admin", Usage: "`ADDR` of a running node's admin API", Value: api.DefaultAdmin, EnvVars: cmdline.Env("ADMIN")},
		&cli.BoolFlag{Name: "json", Usage: "print what the API returns"},
		term.WideFlag(),
	}, more...)
}

// URL returns --admin as a complete URL.
func URL(c *cli.Context) (string, error) {
	addr := c.String("admin")
	if !strings.Contains(addr, "://") {
		addr = "http://" + addr
	}
	u, err := url.Parse(addr)
	if err != nil || u.Host == "" {
		return "", cmdline.BadInput(fmt.Errorf("--admin %s: want HOST:PORT", c.String("admin")))
	}
	return strings.TrimSuffix(u.String(), "/"), nil
}

// adminOf returns a client of the node at --admin.
func adminOf(c *cli.Context) (api.Client, error) {
	base, err := URL(c)
	return api.Client{URL: base}, err
}

// adminExit gives an error of the admin API its exit code and a message for the
// user of the command.
func adminExit(err error) error {
	var (
		unreachable *api.UnreachableError
		refused     *api.RefusedError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &unreachable):
		return cli.Exit(err.Error()+": is it running, and is that its --admin address?", cmdline.ExitConnection)
	case errors.As(err, &refused):
		code := cmdline.ExitFailure
		switch said := refused.Said; {
		case said.Status < 500:
			code = cmdline.ExitInput
		case said.Code == problem.NotKnown, said.Code == problem.NoAnswer:
			code = cmdline.ExitConnection
		}
		return cli.Exit(refused.Said.Error(), code)
	case errors.Is(err, api.ErrClosed):
		return cli.Exit(api.ErrClosed.Error(), cmdline.ExitConnection)
	}
	return err
}

// Node calls f with a client of the node at --admin, for adminTimeout at most.
func Node(c *cli.Context, f func(context.Context, api.Client) error) error {
	client, err := adminOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, adminTimeout)
	defer cancel()
	return adminExit(f(ctx, client))
}

// Get asks the admin API and decodes its answer into v. With --json the answer
// is printed as it is. done reports that the command is finished, also after an
// error.
func Get(c *cli.Context, path string, v any) (done bool, err error) {
	if !c.Bool("json") {
		err := Fetch(c, path, v)
		return err != nil, err
	}
	return true, Node(c, func(ctx context.Context, client api.Client) error {
		b, err := client.Raw(ctx, path)
		if err == nil {
			_, err = c.App.Writer.Write(b)
		}
		return err
	})
}

// Fetch asks the admin API regardless of --json; post does the same and sends
// body.
func Fetch(c *cli.Context, path string, v any) error {
	return Node(c, func(ctx context.Context, client api.Client) error { return client.Get(ctx, path, v) })
}

func Post(c *cli.Context, path string, body []byte, v any) error {
	return Node(c, func(ctx context.Context, client api.Client) error { return client.Post(ctx, path, body, v) })
}

// Follow reads server-sent events until the stream ends, f fails, or the
// command is interrupted, which is the normal end of a watch.
func Follow(c *cli.Context, path string, f func(data []byte) error) error {
	client, err := adminOf(c)
	if err != nil {
		return err
	}
	err = client.Events(c.Context, path, f)
	if c.Context.Err() != nil {
		return nil
	}
	return adminExit(err)
}

// NamesOf returns the names known to the node that the command asks, or none if
// it does not answer: a table is still useful without names.
func NamesOf(c *cli.Context) names.Names {
	var known map[string]string
	if Fetch(c, "/names", &known) != nil {
		return names.New(nil)
	}
	byID := make(map[peer.ID]string, len(known))
	for s, name := range known {
		if id, err := peer.Decode(s); err == nil {
			byID[id] = name
		}
	}
	return names.New(byID)
}

// PeerCalled resolves s, a name or the end of a peer ID, to a node.
func PeerCalled(c *cli.Context, s string) (peer.ID, error) {
	if id, err := peer.Decode(s); err == nil {
		return id, nil
	}
	known := NamesOf(c)
	switch found := known.Find(s); len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", cmdline.BadInput(fmt.Errorf("%q is neither one peer ID nor the name of a node that is known here; weir peers shows them", s))
	default:
		return "", cmdline.BadInput(fmt.Errorf("several nodes are called %q: %s; say which", s, known.List(found)))
	}
}
