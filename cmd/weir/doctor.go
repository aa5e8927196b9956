package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/capacity/scope"
	"weir/cmd/weir/cmdline"
	"weir/cmd/weir/term"
	"weir/dht"
	"weir/sfu"
)

// A diagnosis is what weir doctor prints.
type diagnosis struct {
	OK      bool        `json:"ok"` // nothing failed; there may be warnings
	Node    string      `json:"node"`
	Network string      `json:"network"`
	Checks  []dht.Check `json:"checks"`
}

// diagnose looks at the node's network, and at the node itself.
func (n *node) diagnose(ctx context.Context) diagnosis {
	d := diagnosis{OK: true, Node: n.dht.ID().String(), Network: n.cfg.network, Checks: n.dht.Diagnose(ctx, n.cfg.open)}
	d.Checks = append(d.Checks, checkURLs(n.publicURL(), n.media(), n.cfg.open), checkRefused(n.gate.Refused()), checkDataDir(n.cfg.dataDir), checkState(n.ledger.Totals(time.Now())), dht.Check{
		Name: "media", Outcome: dht.Fine,
		Seen: fmt.Sprintf("bound to UDP %s; whether clients reach it cannot be seen from here", n.gauge.Socket.LocalAddr()),
	})
	if n.cfg.operator != "" {
		d.Checks = append(d.Checks, n.policies.check())
	}
	if n.rights != nil {
		d.Checks = append(d.Checks, checkRights(n.rights.Status(), n.rights.HandsOn() || n.tuned.Load().overflow == sfu.Refuse, time.Now()))
	}
	if n.cfg.tls != nil {
		d.Checks = append(d.Checks, n.cfg.tls.check(n.publicURL(), time.Now()))
	}
	if state, _, err := n.view.latest(ctx); err == nil && strings.HasPrefix(n.publicURL(), "https://") {
		d.Checks = append(d.Checks, checkMixed(state.Nodes))
	}
	for _, c := range d.Checks {
		if c.Outcome == dht.Failure {
			d.OK = false
		}
	}
	return d
}

// checkURLs says where clients are sent.
func checkURLs(base, media string, open bool) dht.Check {
	c := dht.Check{Name: "clients", Outcome: dht.Fine, Seen: fmt.Sprintf("are told %s, and %s for media", base, media)}
	for _, host := range []string{hostOf(base), hostOf("//" + media)} {
		ip, err := netip.ParseAddr(host)
		switch {
		case err != nil: // a name
		case ip.IsUnspecified():
			c.Outcome, c.Do = dht.Failure, "give --public-url (and --public-ip behind a NAT), or bind --http and --media-port to the address that clients reach"
			c.Seen += ": that is no machine in particular"
			return c
		case ip.IsLoopback() && open:
			c.Outcome, c.Do = dht.Failure, "give --public-url, or bind --http and --media-port to the address that clients reach; or leave --insecure-open out"
			c.Seen += ": only clients on this machine get there, though --insecure-open is given"
			return c
		}
	}
	return c
}

// checkRefused says whether others name addresses that are not used.
func checkRefused(refused map[scope.Refusal]uint64) dht.Check {
	c := dht.Check{Name: "addresses", Outcome: dht.Fine, Seen: "of others, all were used"}
	var kinds []string
	private := false
	for r, n := range refused {
		kinds = append(kinds, fmt.Sprintf("%d %s for a %s", n, r.Kind, r.Use))
		private = private || r.Kind == scope.Private || r.Kind == scope.Shared
	}
	if len(kinds) == 0 {
		return c
	}
	slices.Sort(kinds)
	c.Seen = "of others that were not used: " + strings.Join(kinds, ", ")
	if private {
		c.Outcome, c.Do = dht.Warning, "if nodes of this network are reached at private addresses, give --allow-private: this node has a public one too"
	}
	return c
}

func hostOf(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

// checkDataDir says whether the node can keep what it knows.
func checkDataDir(dir string) dht.Check {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return dht.Check{Name: "data", Outcome: dht.Warning, Seen: fmt.Sprintf("nothing can be written to %s (%v): peers and policies are forgotten at a restart", dir, errors.Unwrap(err)),
			Do: "make --data-dir writable for this user"}
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	return dht.Check{Name: "data", Outcome: dht.Fine, Seen: "kept in " + dir}
}

// checkState says whether the node takes placements.
func checkState(t ledger.Totals) dht.Check {
	c := dht.Check{Name: "state", Outcome: dht.Fine, Seen: fmt.Sprintf("%s, at stress %.2f", t.State, t.Stress)}
	switch t.State {
	case capacity.Full:
		c.Outcome, c.Do = dht.Warning, "raise the limit that is reached (weir status shows them), or add nodes"
		c.Seen += ": it sends clients to others, and takes none of theirs"
	case capacity.Draining:
		c.Outcome, c.Do = dht.Warning, "let it take placements again, or end it"
		c.Seen += ": it takes no placements"
	}
	return c
}

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "why a running node is alone, cut off or not chosen, and what to do",
		Description: "Asks the node to look at its addresses, at whom it should reach, at what holders\n" +
			"have of it, at clocks and settings. Exits with 1 if something is wrong, and with 2\n" +
			"if no node answers at --admin.",
		Flags: adminFlags(),
		Action: func(c *cli.Context) error {
			resp, cancel, err := ask(c, "/doctor", adminTimeout)
			if exit, ok := err.(cli.ExitCoder); ok && exit.ExitCode() == cmdline.ExitConnection {
				return cli.Exit(err.Error()+" To start one: weir node --dev; to start several: weir testnet up", cmdline.ExitConnection)
			}
			if err != nil {
				return err
			}
			defer cancel()
			defer resp.Body.Close()
			b, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminReply))
			if err != nil {
				return cli.Exit(fmt.Sprintf("%s: the answer broke off: %v", resp.Request.URL, err), cmdline.ExitConnection)
			}
			var d diagnosis
			if err := json.Unmarshal(b, &d); err != nil {
				return fmt.Errorf("%s: not the answer of a weir node: %w", resp.Request.URL, err)
			}
			if c.Bool("json") {
				if _, err := c.App.Writer.Write(b); err != nil {
					return err
				}
			} else {
				printDiagnosis(c.App.Writer, d)
			}
			if !d.OK {
				return cli.Exit("", cmdline.ExitFailure)
			}
			return nil
		},
	}
}

// printDiagnosis prints what was seen check by check, with what to do below each
// that is not fine, and what it all comes to.
func printDiagnosis(w io.Writer, d diagnosis) {
	marks := map[dht.Outcome]string{dht.Fine: "ok  ", dht.Warning: "WARN", dht.Failure: "FAIL", dht.Skipped: "-   "}
	wide := 0
	for _, c := range d.Checks {
		wide = max(wide, len(c.Name))
	}
	fmt.Fprintf(w, "node %s of network %q\n\n", d.Node, d.Network)
	var failed, warned []string
	for _, c := range d.Checks {
		fmt.Fprintf(w, "%s  %-*s  %s\n", marks[c.Outcome], wide, c.Name, term.Printable(c.Seen))
		if c.Do != "" {
			fmt.Fprintf(w, "      %-*s  → %s\n", wide, "", term.Printable(c.Do))
		}
		switch c.Outcome {
		case dht.Failure:
			failed = append(failed, c.Name)
		case dht.Warning:
			warned = append(warned, c.Name)
		}
	}
	fmt.Fprintln(w)
	switch {
	case len(failed) > 0:
		also := ""
		if len(warned) > 0 {
			also = "; have a look at " + names(warned) + " too"
		}
		fmt.Fprintf(w, "%s: %s%s\n", term.Count(len(failed), "problem", "problems"), names(failed), also)
	case len(warned) > 0:
		fmt.Fprintf(w, "nothing is broken; have a look at %s\n", names(warned))
	default:
		fmt.Fprintln(w, "all is well")
	}
}

// names lists each of all once.
func names(all []string) string {
	var list []string
	seen := map[string]bool{}
	for _, s := range all {
		if !seen[s] {
			seen[s] = true
			list = append(list, s)
		}
	}
	return strings.Join(list, ", ")
}

func (n *node) doctor(r *http.Request) (any, error) { return n.diagnose(r.Context()), nil }
