package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"weir/capacity"
	"weir/capacity/ledger"
	"weir/capacity/scope"
	"weir/cmd/weir/auth"
	"weir/cmd/weir/certs"
	"weir/cmd/weir/doctor"
	"weir/dht/inspect"
	"weir/sfu"
)

// diagnose checks the node's network, and the node itself.
func (n *node) diagnose(ctx context.Context) doctor.Diagnosis {
	d := doctor.Diagnosis{Node: n.dht.ID().String(), Network: n.cfg.network, Checks: doctor.WordAll(n.dht.Diagnose(ctx, n.cfg.open))}
	d.Checks = append(d.Checks, checkURLs(n.ports.base(), n.ports.mediaAddr(), n.cfg.open), checkRefused(n.gate.Refused()), checkDataDir(n.cfg.dataDir), checkState(n.ledger.Totals(time.Now())), doctor.Check{
		Name: "media", Outcome: inspect.Fine,
		Seen: fmt.Sprintf("bound to UDP %s; whether clients reach it cannot be seen from here", n.gauge.Socket.LocalAddr()),
	})
	if n.cfg.operator != "" {
		d.Checks = append(d.Checks, n.policies.Check())
	}
	if n.rights != nil {
		d.Checks = append(d.Checks, auth.Check(n.rights.Status(), n.rights.Transferable() || n.tuned.Load().overflow == sfu.Refuse, time.Now()))
	}
	if n.cfg.tls != nil {
		d.Checks = append(d.Checks, n.cfg.tls.Check(n.ports.base(), time.Now()))
	}
	if state, _, err := n.view.Latest(ctx); err == nil && strings.HasPrefix(n.ports.base(), "https://") {
		d.Checks = append(d.Checks, certs.CheckMixed(state.Nodes))
	}
	d.OK = !slices.ContainsFunc(d.Checks, func(c doctor.Check) bool { return c.Outcome == inspect.Failure })
	return d
}

// checkURLs checks the URLs that clients are sent to.
func checkURLs(base, media string, open bool) doctor.Check {
	c := doctor.Check{Name: "clients", Outcome: inspect.Fine, Seen: fmt.Sprintf("are told %s, and %s for media", base, media)}
	for _, host := range []string{certs.HostOf(base), certs.HostOf("//" + media)} {
		ip, err := netip.ParseAddr(host)
		switch {
		case err != nil: // a name
		case ip.IsUnspecified():
			c.Outcome, c.Do = inspect.Failure, "give --public-url (and --public-ip behind a NAT), or bind --http and --media-port to the address that clients reach"
			c.Seen += ": that is no machine in particular"
			return c
		case ip.IsLoopback() && open:
			c.Outcome, c.Do = inspect.Failure, "give --public-url, or bind --http and --media-port to the address that clients reach; or leave --insecure-open out"
			c.Seen += ": only clients on this machine get there, though --insecure-open is given"
			return c
		}
	}
	return c
}

// checkRefused reports addresses named by other nodes that the gate refused.
func checkRefused(refused map[scope.Refusal]uint64) doctor.Check {
	c := doctor.Check{Name: "addresses", Outcome: inspect.Fine, Seen: "of others, all were used"}
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
		c.Outcome, c.Do = inspect.Warning, "if nodes of this network are reached at private addresses, give --allow-private: this node has a public one too"
	}
	return c
}

// checkDataDir checks that the node can write its data directory.
func checkDataDir(dir string) doctor.Check {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return doctor.Check{Name: "data", Outcome: inspect.Warning, Seen: fmt.Sprintf("nothing can be written to %s (%v): peers and policies are forgotten at a restart", dir, errors.Unwrap(err)),
			Do: "make --data-dir writable for this user"}
	}
	_ = f.Close()
	_ = os.Remove(f.Name())
	return doctor.Check{Name: "data", Outcome: inspect.Fine, Seen: "kept in " + dir}
}

// checkState checks that the node takes placements.
func checkState(t ledger.Totals) doctor.Check {
	c := doctor.Check{Name: "state", Outcome: inspect.Fine, Seen: fmt.Sprintf("%s, at stress %.2f", t.State, t.Stress)}
	switch t.State {
	case capacity.Full:
		c.Outcome, c.Do = inspect.Warning, "raise the limit that is reached (weir status shows them), or add nodes"
		c.Seen += ": it sends clients to others, and takes none of theirs"
		if t.Late {
			c.Seen += ", because it served packets too late"
			c.Do = "find what takes its CPU, another program or another machine on the same host (weir status shows the delay), or give it fewer sessions"
		}
	case capacity.Draining:
		c.Outcome, c.Do = inspect.Warning, "let it take placements again, or end it"
		c.Seen += ": it takes no placements"
	}
	return c
}
