package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A netns is a network namespace made by the test.
type netns struct {
	t    *testing.T
	name string
}

// netnsMade numbers them: concurrent tests use the same names.
var netnsMade atomic.Int32

// newNetns makes a namespace, with loopback up. It needs root; without it the
// calling test is skipped.
func newNetns(t *testing.T, name string) *netns {
	t.Helper()
	ns := &netns{t, fmt.Sprintf("weir-%d-%d-%s", os.Getpid(), netnsMade.Add(1), name)}
	if out, err := exec.Command("ip", "netns", "add", ns.name).CombinedOutput(); err != nil {
		t.Skipf("a network namespace cannot be made here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns.name).Run() })
	ns.ip("link set lo up")
	// Skip duplicate address detection; the command fails on a machine without
	// IPv6.
	_, _ = ns.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/default/dad_transmits")
	return ns
}

// ip runs an ip command in the namespace.
func (ns *netns) ip(args string) {
	ns.t.Helper()
	if out, err := exec.Command("ip", append([]string{"-n", ns.name}, strings.Fields(args)...)...).CombinedOutput(); err != nil {
		ns.t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

// command is a command in the namespace, killed at the end of the test.
func (ns *netns) command(args ...string) *exec.Cmd {
	return exec.CommandContext(ns.t.Context(), "ip", append([]string{"netns", "exec", ns.name}, args...)...)
}

// run runs a command in the namespace to its end.
func (ns *netns) run(args ...string) (string, error) {
	out, err := ns.command(args...).CombinedOutput()
	return string(out), err
}

// nft loads rules; without nft the test is skipped.
func (ns *netns) nft(rules string) {
	ns.t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		ns.t.Skip(err)
	}
	cmd := ns.command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		ns.t.Fatalf("nft: %v: %s", err, out)
	}
}

// wire connects a and b by a veth pair, each end with its addresses.
func wire(a *netns, dev string, addrsA []string, b *netns, devB string, addrsB []string) {
	a.t.Helper()
	a.ip(fmt.Sprintf("link add %s type veth peer name %s netns %s", dev, devB, b.name))
	for _, end := range []struct {
		ns    *netns
		dev   string
		addrs []string
	}{{a, dev, addrsA}, {b, devB, addrsB}} {
		for _, addr := range end.addrs {
			nodad := ""
			if strings.Contains(addr, ":") {
				nodad = " nodad"
			}
			end.ns.ip("addr add " + addr + " dev " + end.dev + nodad)
		}
		end.ns.ip("link set " + end.dev + " up")
	}
}

// node starts a node in the namespace, and waits until it is ready.
func (ns *netns) node(flags ...string) (log *bytes.Buffer) {
	ns.t.Helper()
	dir := ns.t.TempDir()
	ready := filepath.Join(dir, "ready")
	cmd := ns.command(append([]string{weir, "node", "--insecure-open", "--data-dir", filepath.Join(dir, "data"), "--network", "netns", "--stop-timeout", "0", "--ready-file", ready}, flags...)...)
	log = &bytes.Buffer{} // read only after the process has ended
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 15 * time.Second
	if err := cmd.Start(); err != nil {
		ns.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // interrupted at the end of the test
	}()
	ns.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-ended
		if ns.t.Failed() {
			ns.t.Logf("the node's log:\n%s", log)
		}
	})
	eventually(ns.t, "the node is ready", func() bool {
		select {
		case <-ended:
			ns.t.Fatalf("the node has ended:\n%s", log)
		default:
		}
		b, err := os.ReadFile(ready)
		return err == nil && len(b) > 0
	})
	return log
}

// publishes returns the output of a headless publisher in the namespace, and
// whether its media arrived.
func (ns *netns) publishes(url string, flags ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ns.t.Context(), patience)
	defer cancel()
	args := append([]string{"netns", "exec", ns.name, weir, "publish", "--pattern", "--duration", "2s"}, flags...)
	out, err := exec.CommandContext(ctx, "ip", append(args, url)...).CombinedOutput()
	return string(out), err
}

// A node has two addresses, of which clients reach only the second, and is
// bound to all. It offers both, and answers from the address that the request
// came to.
func TestMultihomedNode(t *testing.T) {
	t.Parallel()
	node, client := newNetns(t, "node"), newNetns(t, "client")
	router := newNetns(t, "router")
	wire(node, "e0", []string{"10.204.0.2/24", "fd04::2/64"}, router, "r0", []string{"10.204.0.1/24", "fd04::1/64"})
	wire(node, "e1", []string{"10.205.0.2/24", "fd05::2/64"}, router, "r1", []string{"10.205.0.1/24", "fd05::1/64"})
	wire(client, "e0", []string{"10.206.0.2/24", "fd06::2/64"}, router, "r2", []string{"10.206.0.1/24", "fd06::1/64"})
	node.ip("route add default via 10.204.0.1")
	node.ip("route add default via 10.205.0.1 dev e1 table 5")
	node.ip("rule add from 10.205.0.2 table 5")
	node.ip("-6 route add default via fd04::1")
	node.ip("-6 route add default via fd05::1 dev e1 table 5")
	node.ip("-6 rule add from fd05::2 table 5")
	client.ip("route add default via 10.206.0.1")
	client.ip("-6 route add default via fd06::1")
	for _, ns := range []*netns{node, router} {
		if out, err := ns.run("sh", "-c", "for i in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 >$i; done; echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"); err != nil {
			t.Skipf("sysctl: %v: %s", err, out)
		}
	}
	router.nft(`table inet t { chain forward { type filter hook forward priority 0;
		ip saddr 10.206.0.0/24 ip daddr 10.204.0.0/24 drop
		ip saddr 10.204.0.0/24 ip daddr 10.206.0.0/24 drop
		ip6 saddr fd06::/64 ip6 daddr fd04::/64 drop
		ip6 saddr fd04::/64 ip6 daddr fd06::/64 drop
	}
	}`)
	node.node("--listen", "/ip4/10.205.0.2/tcp/4001", "--http", "[::]:8080", "--admin", "127.0.0.1:8081", "--media-port", "[::]:8082", "--public-url", "http://10.205.0.2:8080", "--cpu-limit", "0")
	for _, url := range []string{"http://10.205.0.2:8080/whip/four", "http://[fd05::2]:8080/whip/six"} {
		if out, err := client.publishes(url); err != nil {
			t.Errorf("%s: %v: %s", url, err, out)
		}
	}
}

// A client whose UDP is blocked publishes and views over TCP, at the number of
// the UDP port; a client that stops reading delays no other.
func TestUDPBlocked(t *testing.T) {
	t.Parallel()
	node, client := newNetns(t, "node"), newNetns(t, "client")
	wire(node, "e0", []string{"10.207.0.1/24"}, client, "e0", []string{"10.207.0.2/24"})
	client.nft(`table inet t { chain output { type filter hook output priority 0;
		meta l4proto udp drop
	}
	}`)
	node.node("--listen", "/ip4/10.207.0.1/tcp/4001", "--http", "10.207.0.1:8080", "--admin", "127.0.0.1:8081", "--media-port", "8082", "--cpu-limit", "0")
	const whip, whep = "http://10.207.0.1:8080/whip/demo", "http://10.207.0.1:8080/whep/demo"
	publisher := client.command(weir, "publish", "--tcp", "--pattern", whip)
	if err := publisher.Start(); err != nil {
		t.Fatal(err)
	}
	view := func() (string, error) {
		return client.run(weir, "view", "--tcp", "--wait", "10s", "--duration", "2s", whep)
	}
	if out, err := view(); err != nil {
		t.Fatalf("view: %v: %s", err, out)
	}
	stuck := client.command(weir, "view", "--tcp", whep)
	if err := stuck.Start(); err != nil {
		t.Fatal(err)
	}
	metric := func(series string) string {
		out, err := node.run("curl", "-s", "http://127.0.0.1:8081/metrics")
		if err != nil {
			t.Fatalf("metrics: %v: %s", err, out)
		}
		for line := range strings.Lines(out) {
			if value, ok := strings.CutPrefix(line, series+" "); ok {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	eventually(t, "the viewer that will stop is there", func() bool { return metric("weir_media_tcp_connections") == "2" })
	if err := stuck.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if out, err := view(); err != nil {
		t.Errorf("view beside one that does not read: %v: %s", err, out)
	}
	eventually(t, "the one that does not read is let go", func() bool { return metric("weir_media_tcp_connections") == "1" })
	_ = stuck.Process.Kill()
	_ = stuck.Wait()
	if out, err := client.publishes(strings.Replace(whip, "demo", "udp", 1)); err == nil || !strings.Contains(out, "--tcp") {
		t.Errorf("without --tcp: %v: %s", err, out)
	}
	_ = publisher.Process.Signal(os.Interrupt)
	_ = publisher.Wait() // interrupted
}
