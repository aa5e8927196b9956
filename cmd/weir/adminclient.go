package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/sfu/problem"
)

const (
	// adminTimeout bounds one request to the admin API.
	adminTimeout = 10 * time.Second
	// maxAdminReply bounds what is read of an answer, in bytes.
	maxAdminReply = 64 << 20
)

// adminFlags are those of every command that asks a running node.
func adminFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "admin", Usage: "`ADDR` of a running node's admin API", Value: defaultAdmin, EnvVars: cmdline.Env("ADMIN")},
		&cli.BoolFlag{Name: "json", Usage: "print what the API returns"},
		term.WideFlag(),
	}, more...)
}

// adminURL completes --admin.
func adminURL(c *cli.Context) (string, error) {
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

// get asks the admin API and decodes its answer into v. With --json the answer
// is printed as it is, and done reports that nothing is left to do.
func get(c *cli.Context, path string, v any) (done bool, err error) {
	resp, cancel, err := ask(c, path, adminTimeout)
	if err != nil {
		return true, err
	}
	defer cancel()
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminReply))
	if err != nil {
		return true, cli.Exit(fmt.Sprintf("%s: the answer broke off: %v", resp.Request.URL, err), cmdline.ExitConnection)
	}
	if c.Bool("json") {
		_, err := c.App.Writer.Write(b)
		return true, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return true, fmt.Errorf("%s: not the answer of a weir node: %w", resp.Request.URL, err)
	}
	return false, nil
}

// ask sends one GET to the admin API. A timeout of 0 is none.
func ask(c *cli.Context, path string, timeout time.Duration) (*http.Response, context.CancelFunc, error) {
	return request(c, http.MethodGet, path, nil, timeout)
}

// fetch asks the admin API, whatever --json says, and post sends it body.
func fetch(c *cli.Context, path string, v any) error {
	return exchange(c, http.MethodGet, path, nil, v)
}

func post(c *cli.Context, path string, body []byte, v any) error {
	return exchange(c, http.MethodPost, path, body, v)
}

func exchange(c *cli.Context, method, path string, body []byte, v any) error {
	resp, cancel, err := request(c, method, path, body, adminTimeout)
	if err != nil {
		return err
	}
	defer cancel()
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAdminReply)).Decode(v); err != nil {
		return fmt.Errorf("%s: not the answer of a weir node: %w", resp.Request.URL, err)
	}
	return nil
}

// request sends one request to the admin API. The caller closes the answer's
// body and then calls cancel.
func request(c *cli.Context, method, path string, body []byte, timeout time.Duration) (*http.Response, context.CancelFunc, error) {
	base, err := adminURL(c)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(c.Context)
	if timeout > 0 {
		ctx, cancel = context.WithTimeout(c.Context, timeout)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+"/api/v1"+path, bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, nil, cmdline.BadInput(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		cancel()
		return nil, nil, cli.Exit(fmt.Sprintf("no node answers at %s (%s): is it running, and is that its --admin address?", base, problem.Cause(err)), cmdline.ExitConnection)
	}
	if resp.StatusCode != http.StatusOK {
		said := problem.Read(resp)
		resp.Body.Close()
		cancel()
		code := cmdline.ExitFailure
		switch {
		case resp.StatusCode < 500:
			code = cmdline.ExitInput
		case said.Code == problem.NotKnown, said.Code == problem.NoAnswer:
			code = cmdline.ExitConnection
		}
		return nil, nil, cli.Exit(said.Error(), code)
	}
	return resp, cancel, nil
}

// events reads server-sent events until the stream or f ends.
func events(c *cli.Context, path string, f func(data []byte) error) error {
	resp, cancel, err := ask(c, path, 0)
	if err != nil {
		return err
	}
	defer cancel()
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := f([]byte(data)); err != nil {
				return err
			}
		}
	}
	if c.Context.Err() != nil {
		return nil // interrupted: that is how a watch ends
	}
	return cli.Exit("the node has closed the stream", cmdline.ExitConnection)
}
