package daemon

import (
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"

	"weir/capacity"
	"weir/cmd/weir/api"
	"weir/cmd/weir/build"
	"weir/cmd/weir/provision"
	"weir/dht"
)

func (n *node) ready() api.Ready {
	info := api.Ready{
		PeerID: n.dht.ID().String(), Name: n.cfg.name, HTTP: n.ports.localURL(), Admin: "http://" + n.ports.adminAddr(),
		Media: n.ports.mediaAddr(), PID: os.Getpid(), Network: n.cfg.network, DataDir: n.cfg.dataDir,
	}
	if n.ports.scrapes != nil {
		info.Metrics = "http://" + n.ports.scrapes.Addr().String()
	}
	for _, a := range n.dht.Overlay.Addrs() {
		info.P2P = append(info.P2P, a.String())
	}
	return info
}

// sample is the node's current record of itself.
func (n *node) sample() (capacity.Record, []capacity.StreamInfo) {
	r := capacity.Record{
		Name: n.cfg.name, URL: n.ports.base(), Media: n.ports.mediaAddr(), Region: n.cfg.region, Zone: n.cfg.zone,
		Release: build.Release(), Features: n.features(), Policy: n.policy.Policy().Policy().Version,
	}
	n.ledger.Totals(time.Now()).Fill(&r)
	reading := n.gauge.Read()
	r.Cores, r.Downlink.Used = reading.Cores, reading.Downlink
	return r, n.sfu.StreamInfos()
}

func (n *node) features() []string {
	list := append([]string{"whip", "whep", "cascade/1"}, n.rights.Features(n.dht.ID())...)
	if n.provisioner != nil {
		list = append(list, dht.ProvisionFeature)
	}
	if n.releaser != nil && n.releaser.Releasable() {
		list = append(list, provision.ReleasableFeature)
	}
	return list
}

func (n *node) status() api.Status {
	info := n.ready()
	record, _ := n.sample()
	record.Node, record.Addrs, record.Coordinate = n.dht.ID(), n.dht.Overlay.Host.Addrs(), n.dht.Overlay.Coords.Here()
	record.TTL, record.Issued = capacity.DefaultTTL, time.Now()
	totals := n.ledger.Totals(time.Now())
	counts := n.sfu.Counts()
	s := api.Status{
		PeerID: n.dht.ID(), Name: n.cfg.name, Release: build.Release(), Network: n.cfg.network, Discovery: n.cfg.discovery, Region: n.cfg.region,
		State: totals.State, Stress: totals.Stress, Uptime: time.Since(n.began).Milliseconds(),
		P2P: info.P2P, HTTP: info.HTTP, TLS: n.cfg.tls.Status(), Admin: info.Admin, Media: info.Media, Policy: n.policy.Policy().Policy().Version,
		Overflow: n.tuned.Load().overflow, Publishers: counts.Publishers, Viewers: counts.Viewers, Streams: counts.Streams,
		Links: counts.Links, Leases: totals.Leases, Peers: len(n.dht.Overlay.Host.Network().Peers()),
		NotForwarded: n.sfu.NotForwarded(), Goroutines: runtime.NumGoroutine(), Drain: n.drain.Status(), Waiting: int64(n.placer.Waiters.Len()),
		Provision: n.provisioner.Status(), Requests: api.Requests{SettingUp: counts.Setups, Waiting: counts.Waiting}, Releasable: n.releaser != nil && n.releaser.Releasable(), Record: record, Traffic: n.dht.Overlay.Traffic.List(),
	}
	if n.cfg.servers != nil {
		s.Servers = len(n.cfg.servers.Servers())
	}
	for _, t := range n.dht.Reader.Holdings() {
		s.Holds += len(t.Records)
	}
	return s
}

// aboutNode are the resource attributes of all telemetry of a node.
func aboutNode(self peer.ID, cfg nodeConfig) []attribute.KeyValue {
	about := []attribute.KeyValue{
		semconv.ServiceInstanceID(self.String()), semconv.ServiceNamespace(cfg.network), attribute.String("weir.node.name", cfg.name),
	}
	if cfg.region != "" {
		about = append(about, semconv.CloudRegion(cfg.region))
	}
	if cfg.zone != "" {
		about = append(about, semconv.CloudAvailabilityZone(cfg.zone))
	}
	return about
}

// defaultName is a node's name if the operator gave none: the machine's host
// name without its domain.
func defaultName() string {
	host, err := os.Hostname()
	if err != nil {
		return ""
	}
	return nameOf(host)
}

// nameOf makes a node's name of a machine's host name, or "" if nothing is left.
func nameOf(host string) string {
	host, _, _ = strings.Cut(host, ".")
	name := strings.Map(func(c rune) rune {
		if capacity.NameRune(c) {
			return c
		}
		return '-'
	}, host)
	return strings.Trim(name[:min(len(name), capacity.MaxName)], "-")
}

// names are the names known to this node, its own included, by peer ID.
func (n *node) names() map[string]string {
	known := n.dht.Prober.Names()
	if n.cfg.name != "" {
		known[n.dht.ID()] = n.cfg.name
	}
	byID := make(map[string]string, len(known))
	for id, name := range known {
		byID[id.String()] = name
	}
	return byID
}

// nameOf returns id's name as given by its operator, if known.
func (n *node) nameOf(id peer.ID) string {
	if id == n.dht.ID() {
		return n.cfg.name
	}
	return n.dht.Prober.Name(id)
}

// isReady reports whether the node is in its network.
func (n *node) isReady() bool {
	select {
	case <-n.dht.Ready():
		return true
	default:
		return false
	}
}
