package auth

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"weir/cmd/weir/api"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/sfu/rights"
)

// TokenCommand is weir token.
func TokenCommand() *cli.Command {
	return &cli.Command{
		Name: "token", Usage: "what lets clients publish and view: key, new, show, secret",
		Subcommands: []*cli.Command{
			{
				Name: "key", Usage: "make a key that signs tokens, and print the set that nodes are given", ArgsUsage: "FILE",
				Description: "FILE is written with the private key, readable by its owner only; keep it off the\n" +
					"nodes. What is printed goes to each node's --auth-keys.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "kid", Usage: "`ID` of the key, which its tokens name", DefaultText: "derived from the key"},
					&cli.StringFlag{Name: "public", Usage: "write the set to `FILE` instead of printing it"},
					&cli.BoolFlag{Name: "hs256", Usage: "make a secret for HS256 instead, for makers of tokens that cannot do EdDSA; nodes are given FILE itself"},
				},
				Action: tokenKey,
			},
			{
				Name: "new", Usage: "sign a token", ArgsUsage: "STREAM…",
				Description: "STREAM is a name, or the beginning of names with a * behind it, in quotes for the\n" +
					"shell: 'live/*'. '*' is every stream.",
				Flags: []cli.Flag{
					&cli.StringFlag{Name: "key", Usage: "`FILE` that weir token key made", Required: true, EnvVars: cmdline.Env("TOKEN_KEY")},
					&cli.StringSliceFlag{Name: "network", Usage: "`NAME` of the network in which it is good; repeatable", Value: cli.NewStringSlice(api.DefaultNetwork), EnvVars: cmdline.Env("NETWORK")},
					&cli.BoolFlag{Name: "publish", Usage: "it allows to publish"},
					&cli.BoolFlag{Name: "view", Usage: "it allows to view"},
					&cli.DurationFlag{Name: "ttl", Usage: "how long it is good", Value: time.Hour},
					&cli.DurationFlag{Name: "after", Usage: "it becomes good after `D` only"},
					&cli.BoolFlag{Name: "once", Usage: "it lets one session in, at each node that it is shown to"},
					&cli.IntFlag{Name: "sessions", Usage: "most `SESSIONS` at a time, at each node, of the subject or else of the token; 0: any number"},
					&cli.StringFlag{Name: "subject", Usage: "`WHO` it is for"},
					&cli.StringFlag{Name: "id", Usage: "`ID` of the token", DefaultText: "a random one"},
				},
				Action: newToken,
			},
			{
				Name: "show", Usage: "what a token allows, without its key", ArgsUsage: "[TOKEN]",
				Description: "Without TOKEN, or with -, it is read from standard input. Whether the signature is\ngood, only a node with the key can say.",
				Flags:       []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
				Action:      showToken,
			},
			{
				Name: "secret", Usage: "make a secret for the nodes' --ticket-secret", ArgsUsage: "FILE",
				Description: "Give every node of yours the same FILE. A holder of it can let clients in.",
				Action:      ticketSecret,
			},
		},
	}
}

// writeSecret makes a file that only its owner can read. It never overwrites one.
func writeSecret(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return cmdline.BadInput(fmt.Errorf("%s is there already, and is not written over: choose another name, or move it away", path))
	}
	if err != nil {
		return cmdline.BadInput(err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}

func tokenKey(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir token key wants one FILE"))
	}
	path, make := c.Args().First(), rights.NewKey
	if c.Bool("hs256") {
		if c.IsSet("public") {
			return cmdline.BadInput(errors.New("--public and --hs256: a secret has no public part; nodes are given the file itself"))
		}
		make = rights.NewSecret
	}
	key, err := make(c.String("kid"))
	if err != nil {
		return cmdline.BadInput(fmt.Errorf("--kid: %w", err))
	}
	if err := writeSecret(path, key.Private()); err != nil {
		return err
	}
	if c.Bool("hs256") {
		fmt.Fprintf(c.App.ErrWriter, "secret %s is in %s: start nodes with --auth-keys %s\n", key.ID(), path, path)
		return nil
	}
	if to := c.String("public"); to != "" {
		if err := os.WriteFile(to, key.Public(), 0o644); err != nil {
			return cmdline.BadInput(err)
		}
		fmt.Fprintf(c.App.ErrWriter, "key %s is in %s: start nodes with --auth-keys %s\n", key.ID(), path, to)
		return nil
	}
	fmt.Fprintf(c.App.ErrWriter, "key %s is in %s; what is printed is for nodes' --auth-keys\n", key.ID(), path)
	_, err = c.App.Writer.Write(key.Public())
	return err
}

func ticketSecret(c *cli.Context) error {
	if c.NArg() != 1 {
		return cmdline.BadInput(errors.New("weir token secret wants one FILE"))
	}
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // rand.Read does not fail
	path := c.Args().First()
	if err := writeSecret(path, []byte(base64.RawURLEncoding.EncodeToString(secret)+"\n")); err != nil {
		return err
	}
	fmt.Fprintf(c.App.ErrWriter, "a secret is in %s: start all nodes with --ticket-secret %s\n", path, path)
	return nil
}

func newToken(c *cli.Context) error {
	b, err := readBounded(c.String("key"), rights.MaxKeySet)
	if err != nil {
		return cmdline.BadInput(fmt.Errorf("--key: %w", err))
	}
	key, err := rights.ParsePrivateKey(b)
	if err != nil {
		return cmdline.BadInput(fmt.Errorf("--key %s: %w", c.String("key"), advised(err)))
	}
	ttl, after := c.Duration("ttl"), c.Duration("after")
	t := rights.Token{
		Network: c.StringSlice("network"), Subject: c.String("subject"), ID: c.String("id"), Issued: time.Now(),
		Streams: c.Args().Slice(), Once: c.Bool("once"), Sessions: c.Int("sessions"),
	}
	if c.Bool("publish") {
		t.Rights = append(t.Rights, rights.Publish)
	}
	if c.Bool("view") {
		t.Rights = append(t.Rights, rights.View)
	}
	switch {
	case len(t.Rights) == 0:
		return cmdline.BadInput(errors.New("weir token new: say what it allows: --publish, --view or both"))
	case len(t.Streams) == 0:
		return cmdline.BadInput(errors.New("weir token new: name the streams, such as demo or 'live/*'"))
	case ttl <= 0 || after < 0:
		return cmdline.BadInput(errors.New("--ttl: want more than 0; --after: want 0 or more"))
	case t.Once && ttl+after > rights.MaxOnce:
		return cmdline.BadInput(fmt.Errorf("--once: nodes remember for %v at most that it was used; give a shorter --ttl", rights.MaxOnce))
	}
	if t.ID == "" {
		t.ID = rand.Text()
	}
	if after > 0 {
		t.NotBefore = t.Issued.Add(after)
	}
	t.Expires = t.Issued.Add(after + ttl)
	signed, err := rights.Sign(t, key)
	if err != nil {
		return cmdline.BadInput(fmt.Errorf("weir token new: %w", err))
	}
	_, err = fmt.Fprintln(c.App.Writer, signed)
	return err
}

// readBounded reads a file of at most most bytes.
func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = fmt.Errorf("%s: more than %d bytes", path, most)
	}
	return b, err
}

// shownToken is a token as JSON.
type shownToken struct {
	Networks  []string        `json:"networks"`
	Rights    []rights.Action `json:"rights"`
	Streams   []string        `json:"streams"`
	Subject   string          `json:"subject,omitempty"`
	ID        string          `json:"id,omitempty"`
	Issuer    string          `json:"issuer,omitempty"`
	Issued    *time.Time      `json:"issued,omitempty"`
	NotBefore *time.Time      `json:"not_before,omitempty"`
	Expires   time.Time       `json:"expires"`
	State     string          `json:"state"` // good, expired or not-yet-valid, by this machine's clock
	Once      bool            `json:"once"`
	Sessions  int             `json:"sessions"`
	Algorithm string          `json:"alg"`
	KeyID     string          `json:"kid,omitempty"`
}

func showToken(c *cli.Context) error {
	raw := c.Args().First()
	if c.NArg() > 1 {
		return cmdline.BadInput(errors.New("weir token show takes one TOKEN"))
	}
	if raw == "" || raw == "-" {
		b, err := io.ReadAll(io.LimitReader(c.App.Reader, 4*rights.MaxToken))
		if err != nil {
			return cmdline.BadInput(err)
		}
		raw = string(bytes.TrimSpace(b))
	}
	t, err := rights.Inspect(strings.TrimSpace(raw))
	if err != nil {
		return cmdline.BadInput(err)
	}
	now := time.Now()
	s := shownToken{
		Networks: t.Network, Rights: t.Rights, Streams: t.Streams, Subject: t.Subject, ID: t.ID, Issuer: t.Issuer, Expires: t.Expires, State: "good",
		Once: t.Once, Sessions: t.Sessions, Algorithm: t.Algorithm, KeyID: t.KeyID,
	}
	if !t.Issued.IsZero() {
		s.Issued = &t.Issued
	}
	if !t.NotBefore.IsZero() {
		s.NotBefore = &t.NotBefore
	}
	switch {
	case !now.Before(t.Expires):
		s.State = "expired"
	case now.Before(t.NotBefore):
		s.State = "not-yet-valid"
	}
	if c.Bool("json") {
		return term.PrintJSON(c, s)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 4, 2, ' ', 0)
	line := func(key, format string, args ...any) {
		fmt.Fprintf(w, "%s\t%s\n", key, term.Printable(fmt.Sprintf(format, args...)))
	}
	var allows []string
	for _, a := range t.Rights {
		allows = append(allows, string(a))
	}
	line("allows", "to %s %s", strings.Join(allows, " and "), strings.Join(t.Streams, ", "))
	line("in network", "%s", strings.Join(t.Network, ", "))
	if t.Subject != "" {
		line("for", "%s", t.Subject)
	}
	if s.NotBefore != nil {
		line("good after", "%s%s", t.NotBefore.Local().Format(time.DateTime), in(t.NotBefore.Sub(now)))
	}
	if s.State == "expired" {
		line("expired", "%s", t.Expires.Local().Format(time.DateTime))
	} else {
		line("expires", "%s%s", t.Expires.Local().Format(time.DateTime), in(t.Expires.Sub(now)))
	}
	if t.Once {
		line("good", "once at each node")
	}
	if t.Sessions > 0 {
		line("sessions", "%d at a time at each node", t.Sessions)
	}
	if t.ID != "" {
		line("id", "%s", t.ID)
	}
	signed := t.Algorithm
	if t.KeyID != "" {
		signed += " by key " + t.KeyID
	}
	line("signed", "%s; whether rightly is for a node to say", signed)
	return w.Flush()
}

// in formats a duration from now on, for people.
func in(d time.Duration) string {
	if d <= 0 {
		return ""
	}
	return fmt.Sprintf(", in %v", d.Round(time.Second))
}
