package daemon

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"weir/cmd/weir/metrics"
	"weir/sfu/problem"
)

// scrapesAtOnce bounds concurrent scrapes: --metrics may be open to many.
const scrapesAtOnce = 4

// metricsHandler serves /metrics only, under any host name: its clients can
// read metrics, and do nothing else.
func metricsHandler(n *node) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", scraped(n))
	return problem.Mux(mux)
}

func scraped(n *node) http.Handler {
	return promhttp.HandlerFor(registryOf(n), promhttp.HandlerOpts{MaxRequestsInFlight: scrapesAtOnce})
}

// registryOf has all metrics of n, in Prometheus' conventions: base units, label
// values in snake_case and of a bounded set.
func registryOf(n *node) *prometheus.Registry {
	reg := prometheus.NewRegistry()
	gauge := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "weir", Name: name, Help: help}, f))
	}
	counter := func(name, help string, f func() float64) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "weir", Name: name, Help: help}, f))
	}
	reg.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), metrics.Build(),
	)
	gauge("start_time_seconds", "When the node started, Unix time.", func() float64 { return float64(n.began.UnixMilli()) / 1000 })
	gauge("stress_ratio", "Highest ratio of use to limit over all resources; above 1: overloaded.", func() float64 { return n.ledger.Totals(time.Now()).Stress })
	gauge("delay_seconds", "By how much packets are served late: half of the timers of the last two seconds were later.", func() float64 { return n.gauge.Read().Delay.Seconds() })
	gauge("cpu_ratio", "CPU in use as a share of what is available to this process, 0 to 1.", func() float64 { return n.gauge.Read().CPU })
	gauge("streams", "Streams on this node.", func() float64 { return float64(n.sfu.Counts().Streams) })
	gauge("links", "Cascade links.", func() float64 { return float64(n.sfu.Counts().Links) })
	gauge("session_event_streams", "Event streams of sessions that viewers read.", func() float64 { open, _ := n.sfu.Clients().EventStreams(); return float64(open) })
	counter("session_event_streams_dropped_total", "Event streams of sessions closed because their reader did not read.", func() float64 { _, slow := n.sfu.Clients().EventStreams(); return float64(slow) })
	gauge("leases", "Leases granted and not yet used.", func() float64 { return float64(n.ledger.Totals(time.Now()).Leases) })
	gauge("peers", "libp2p peers connected.", func() float64 { return float64(len(n.dht.Overlay.Host.Network().Peers())) })
	gauge("uplink_bytes_per_second", "Sent on the media socket, over the last seconds.", func() float64 { return float64(n.gauge.Read().Uplink) / 8 })
	gauge("downlink_bytes_per_second", "Received on the media socket, over the last seconds.", func() float64 { return float64(n.gauge.Read().Downlink) / 8 })
	gauge("provision_waiting_requests", "Requests that wait for a server to be started.", func() float64 { return float64(n.placer.Waiters.Len()) })
	counter("media_sent_bytes_total", "UDP payload sent on the media socket.", func() float64 { return float64(n.gauge.Socket.Counters().BytesOut) })
	counter("media_received_bytes_total", "UDP payload received on the media socket.", func() float64 { return float64(n.gauge.Socket.Counters().BytesIn) })
	counter("media_sent_datagrams_total", "Datagrams sent on the media socket.", func() float64 { return float64(n.gauge.Socket.Counters().PacketsOut) })
	counter("media_received_datagrams_total", "Datagrams received on the media socket.", func() float64 { return float64(n.gauge.Socket.Counters().PacketsIn) })
	gauge("media_tcp_connections", "Open TCP connections for media.", func() float64 { return float64(n.gauge.Socket.Counters().Connections) })
	counter("media_overflowed_datagrams_total", "Datagrams that the kernel dropped for lack of buffer space: raise net.core.rmem_max, or the node's share of the CPU.", func() float64 { return float64(n.gauge.Socket.Counters().Overflowed) })
	counter("discovery_records_refused_total", "Records and datagrams refused from peers over their rate limit.", func() float64 { return float64(n.dht.Flooded()) })
	n.reloading.register(reg)
	reg.MustRegister(n.outcomes.Counter)
	if n.cfg.tls != nil {
		reg.MustRegister(n.cfg.tls)
	}
	reg.MustRegister(n.handed.Collectors()...)
	n.counters.Register(reg)
	reg.MustRegister(n.spans.Collectors()...)
	reg.MustRegister(metrics.Traffic{Traffic: n.dht.Overlay.Traffic.List}, metrics.Ledger{Ledger: n.ledger}, metrics.Gate{Gate: n.gate}, metrics.Socket{Socket: n.gauge.Socket}, metrics.Repairs{SFU: n.sfu}, metrics.Sends{SFU: n.sfu}, metrics.Media{SFU: n.sfu, Tallies: n.counters.Tallies}, metrics.Rights{Rights: n.rights})
	return reg
}
