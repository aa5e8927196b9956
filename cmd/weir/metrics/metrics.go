package metrics

import (
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/capacity/event"
	"weir/cmd/weir/build"
	"weir/dht"
	"weir/dht/overlay"
	"weir/sfu"
	"weir/sfu/meter"
	"weir/sfu/whip"
)

// Build is a constant metric with the build's version.
func Build() prometheus.Collector {
	info, _ := debug.ReadBuildInfo()
	b := build.Of(info)
	g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "weir", Name: "build_info", Help: "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Commit, "goversion": b.Go},
	}, func() float64 { return 1 })
	return g
}

// Snake turns a word into a label value in snake_case.
func Snake(word string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return '_'
	}, word)
}

// Histogram buckets of durations, in seconds.
var (
	quick = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	slow  = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 40}
	long  = []float64{1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600}
)

// times are the histograms of a node.
type times struct {
	placement, reservation *prometheus.HistogramVec
	age                    prometheus.Histogram
	requests               *prometheus.HistogramVec
	firstPacket            *prometheus.HistogramVec
	roundTrip, pull        prometheus.Histogram
	sessions               *prometheus.HistogramVec
}

func newTimes() *times {
	opts := func(name, help string, buckets []float64) prometheus.HistogramOpts {
		return prometheus.HistogramOpts{Namespace: "weir", Name: name, Help: help, Buckets: buckets}
	}
	t := &times{
		placement:   prometheus.NewHistogramVec(opts("placement_duration_seconds", "Time of placements, reservations included: among the nodes with a stream, or all nodes.", quick), []string{"among"}),
		reservation: prometheus.NewHistogramVec(opts("reservation_duration_seconds", "Time of candidates to answer reservations, granted or not.", quick), []string{"outcome"}),
		age:         prometheus.NewHistogram(opts("record_age_seconds", "Age of the record of the chosen node.", []float64{.1, .25, .5, 1, 2, 3, 4, 5, 7.5, 10, 15})),
		requests:    prometheus.NewHistogramVec(opts("request_duration_seconds", "Time to answer POSTs of publishers and viewers, the wait of ?wait= included.", slow), []string{"role", "code"}),
		firstPacket: prometheus.NewHistogramVec(opts("first_packet_seconds", "From a viewer's POST to the first packet sent to it, which for video begins a keyframe.", slow), []string{"media"}),
		roundTrip:   prometheus.NewHistogram(opts("link_round_trip_seconds", "Round trips of cascade links, taken with every heartbeat.", quick)),
		pull:        prometheus.NewHistogram(opts("pull_duration_seconds", "Time to pull a stream from another node: look-up, reservation, link, subscription.", slow)),
		sessions:    prometheus.NewHistogramVec(opts("session_duration_seconds", "Duration of closed sessions.", long), []string{"role"}),
	}
	for _, among := range []string{"carriers", "nodes"} {
		t.placement.WithLabelValues(among)
	}
	for _, role := range Roles {
		t.sessions.WithLabelValues(role)
	}
	for _, media := range []string{"audio", "video"} {
		t.firstPacket.WithLabelValues(media)
	}
	return t
}

// Roles are the roles of sessions.
var Roles = []string{"publisher", "viewer"}

func (t *times) collectors() []prometheus.Collector {
	return []prometheus.Collector{t.placement, t.reservation, t.age, t.requests, t.firstPacket, t.roundTrip, t.pull, t.sessions}
}

// decided observes the durations of a placement.
func (t *times) decided(among string, d dht.Decision) {
	t.placement.WithLabelValues(among).Observe(d.TotalMillis / 1000)
	for _, r := range d.Reservations {
		switch {
		case r.Lease != "":
			t.reservation.WithLabelValues("granted").Observe(r.Elapsed / 1000)
		case r.Elapsed > 0: // else its answer was not waited for
			t.reservation.WithLabelValues("refused").Observe(r.Elapsed / 1000)
		}
	}
	for _, v := range d.Verdicts {
		if d.Chosen != "" && v.Node == d.Chosen {
			t.age.Observe(max(0, v.Age) / 1000) // the clocks of the two nodes differ
		}
	}
}

// Measured observes a duration that the SFU has measured.
func (t *times) Measured(m sfu.Measure, d time.Duration) {
	switch m {
	case meter.FirstVideo:
		t.firstPacket.WithLabelValues("video").Observe(d.Seconds())
	case meter.FirstAudio:
		t.firstPacket.WithLabelValues("audio").Observe(d.Seconds())
	case meter.RoundTrip:
		t.roundTrip.Observe(d.Seconds())
	}
}

// Requested observes the duration of the POSTs that h serves.
func (t *times) Requested(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		role := ""
		switch {
		case r.Method != http.MethodPost:
		case strings.HasPrefix(r.URL.Path, "/whip/"):
			role = "publisher"
		case strings.HasPrefix(r.URL.Path, "/whep/"):
			role = "viewer"
		}
		if role == "" {
			h.ServeHTTP(w, r)
			return
		}
		began, seen := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(seen, r)
		t.requests.WithLabelValues(role, strconv.Itoa(seen.status)).Observe(time.Since(began).Seconds())
	})
}

// A statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// tallies count events.
type tallies struct {
	opened, closed *prometheus.CounterVec
	redirects      *prometheus.CounterVec
	pulls          *prometheus.CounterVec
	sources        *prometheus.CounterVec

	mu   sync.Mutex
	lost map[string]int64 // packets, by role, of ended sessions
	said map[string]int64 // the last value of each total: a total never falls
}

func newTallies() *tallies {
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "weir", Name: name, Help: help}, labels)
	}
	t := &tallies{
		opened:    vector("sessions_opened_total", "Sessions of publishers and viewers opened.", "role"),
		closed:    vector("sessions_closed_total", "Sessions closed, by reason.", "role", "reason"),
		redirects: vector("redirects_total", "Clients redirected to another node because this one is full.", "role"),
		pulls:     vector("pulls_total", "Pulls of streams from other nodes, by outcome: ready, failed, lost, resumed from another node, moved to one before the parent went, or ended.", "outcome"),
		sources:   vector("stream_source_changes_total", "Changes of streams carried here: waiting, as the publisher has vanished, orphaned, as the origin cannot be reached, resumed from either, or publisher_replaced.", "change"),
		lost:      map[string]int64{}, said: map[string]int64{},
	}
	for _, role := range Roles {
		t.opened.WithLabelValues(role)
		t.redirects.WithLabelValues(role)
		for _, reason := range whip.EndWords() {
			t.closed.WithLabelValues(role, reason)
		}
	}
	for _, outcome := range pullOutcomes {
		t.pulls.WithLabelValues(outcome)
	}
	for _, change := range sourceChanges {
		t.sources.WithLabelValues(change)
	}
	return t
}

var sourceChanges = map[event.Kind]string{
	event.StreamWaiting: "waiting", event.StreamOrphaned: "orphaned", event.StreamResumed: "resumed", event.PublisherReplaced: "publisher_replaced",
}

var pullOutcomes = map[event.Kind]string{
	event.PullReady: "ready", event.PullFailed: "failed", event.PullLost: "lost", event.PullResumed: "resumed", event.PullMoved: "moved", event.PullEnded: "ended",
}

func (t *tallies) collectors() []prometheus.Collector {
	return []prometheus.Collector{t.opened, t.closed, t.redirects, t.pulls, t.sources}
}

// add counts e.
func (t *tallies) add(e event.Event, times *times) {
	switch e.Kind {
	case event.SessionOpened:
		t.opened.WithLabelValues(e.Role).Inc()
	case event.SessionClosed:
		t.closed.WithLabelValues(e.Role, e.Reason).Inc()
		times.sessions.WithLabelValues(e.Role).Observe(e.Elapsed / 1000)
		t.mu.Lock()
		t.lost[e.Role] += max(0, e.Lost)
		t.mu.Unlock()
	case event.Redirected:
		t.redirects.WithLabelValues(e.Role).Inc()
	case event.PullReady:
		times.pull.Observe(e.Elapsed / 1000)
	}
	if outcome := pullOutcomes[e.Kind]; outcome != "" {
		t.pulls.WithLabelValues(outcome).Inc()
	}
	if change := sourceChanges[e.Kind]; change != "" {
		t.sources.WithLabelValues(change).Inc()
	}
}

// Total returns the lost packets of a role, given those of sessions under way.
// Remote ends correct their reports, so the sum may fall; the last value is
// returned then.
func (t *tallies) Total(what string, now int64) float64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said[what] = max(t.said[what], now+t.lost[what])
	return float64(t.said[what])
}

// Media exports the current sessions, links and requests.
type Media struct {
	SFU     *sfu.SFU
	Tallies *tallies
}

var (
	sessionsDesc  = prometheus.NewDesc("weir_sessions", "Open sessions.", []string{"role"}, nil)
	requestsDesc  = prometheus.NewDesc("weir_pending_requests", "POSTs not yet answered, by state: being set up, or waiting for a stream, for room at another node or in the queue.", []string{"state"}, nil)
	lostDesc      = prometheus.NewDesc("weir_media_lost_packets_total", "RTP packets lost, by role: from publishers to this node, to viewers as they report, and on cascade links to this node. Repaired packets do not count.", []string{"role"}, nil)
	beatsDesc     = prometheus.NewDesc("weir_beats_ignored_total", "Beats of origins that a parent passed on faster than an origin counts, and that were ignored.", nil, nil)
	unusedDesc    = prometheus.NewDesc("weir_media_packets_not_forwarded_total", "RTP packets received from publishers and cascade links that could not be forwarded, by reason.", []string{"reason"}, nil)
	keyframesDesc = prometheus.NewDesc("weir_keyframe_requests_total", "Keyframe requests received from viewers and links, and sent to publishers and links.", []string{"direction"}, nil)
	nackedDesc    = prometheus.NewDesc("weir_repair_requested_packets_total", "Packets in NACKs: received from viewers and links, and sent by this node.", []string{"direction"}, nil)
)

// Describe implements prometheus.Collector.
func (c Media) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessionsDesc, requestsDesc, lostDesc, beatsDesc, unusedDesc, keyframesDesc, nackedDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c Media) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, t prometheus.ValueType, v float64, label string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, label)
	}
	counts := c.SFU.Counts()
	put(sessionsDesc, prometheus.GaugeValue, float64(counts.Publishers), "publisher")
	put(sessionsDesc, prometheus.GaugeValue, float64(counts.Viewers), "viewer")
	put(requestsDesc, prometheus.GaugeValue, float64(counts.Setups), "setting_up")
	put(requestsDesc, prometheus.GaugeValue, float64(counts.Waiting), "waiting")

	lost := map[string]int64{"link": c.SFU.Links().Lost()}
	for role, v := range c.SFU.Clients().Lost() {
		lost[role] += v
	}
	for _, l := range c.SFU.Links().All() {
		lost["link"] += max(0, l.Lost)
	}
	for _, role := range append([]string{"link"}, Roles...) {
		put(lostDesc, prometheus.CounterValue, c.Tallies.Total(role, lost[role]), role)
	}
	ch <- prometheus.MustNewConstMetric(beatsDesc, prometheus.CounterValue, float64(c.SFU.Links().BeatsIgnored()))
	for reason, dropped := range c.SFU.NotForwarded() {
		put(unusedDesc, prometheus.CounterValue, float64(dropped), Snake(reason))
	}
	f := c.SFU.Feedback()
	put(keyframesDesc, prometheus.CounterValue, float64(f.KeyframesIn), "received")
	put(keyframesDesc, prometheus.CounterValue, float64(f.KeyframesOut), "sent")
	put(nackedDesc, prometheus.CounterValue, float64(f.RepairsIn), "received")
	put(nackedDesc, prometheus.CounterValue, float64(f.RepairsOut), "sent")
}

// Sends exports what became of the packets for viewers and links.
type Sends struct{ SFU *sfu.SFU }

var (
	skippedDesc   = prometheus.NewDesc("weir_media_skipped_packets_total", "RTP packets for viewers and links skipped because this node could not send them in time: whole frames of video, and audio past twice the delay.", []string{"kind"}, nil)
	probesDesc    = prometheus.NewDesc("weir_congestion_probes_total", "Probes that looked for more room on a viewer's connection by padding.", nil, nil)
	paddingDesc   = prometheus.NewDesc("weir_congestion_padding_bytes_total", "Padding sent by probes.", nil, nil)
	viewersDesc   = prometheus.NewDesc("weir_congestion_viewers", "Viewers by what their congestion feedback says: nothing is known, all layers fit, or video is limited to lower layers.", []string{"state"}, nil)
	encryptedDesc = prometheus.NewDesc("weir_media_encrypted_connections_total", "Connections of viewers and links, by what encrypts their RTP: weir, or pion where the client chose no AES-GCM or is the server of the DTLS handshake, which costs several times the CPU.", []string{"by"}, nil)
)

// Describe implements prometheus.Collector.
func (c Sends) Describe(ch chan<- *prometheus.Desc) {
	ch <- skippedDesc
	ch <- encryptedDesc
	ch <- probesDesc
	ch <- paddingDesc
	ch <- viewersDesc
}

// Collect implements prometheus.Collector.
func (c Sends) Collect(ch chan<- prometheus.Metric) {
	video, audio := c.SFU.Skips()
	ch <- prometheus.MustNewConstMetric(skippedDesc, prometheus.CounterValue, float64(video), "video")
	ch <- prometheus.MustNewConstMetric(skippedDesc, prometheus.CounterValue, float64(audio), "audio")
	probes, bytes := c.SFU.Probes()
	ch <- prometheus.MustNewConstMetric(probesDesc, prometheus.CounterValue, float64(probes))
	ch <- prometheus.MustNewConstMetric(paddingDesc, prometheus.CounterValue, float64(bytes))
	for state, n := range c.SFU.Clients().Congestion() {
		ch <- prometheus.MustNewConstMetric(viewersDesc, prometheus.GaugeValue, float64(n), state)
	}
	here, byPion := c.SFU.Encrypted()
	ch <- prometheus.MustNewConstMetric(encryptedDesc, prometheus.CounterValue, float64(here), "weir")
	ch <- prometheus.MustNewConstMetric(encryptedDesc, prometheus.CounterValue, float64(byPion), "pion")
}

// Repairs exports the outcomes of packets requested again (NACK).
type Repairs struct{ SFU *sfu.SFU }

var repairsDesc = prometheus.NewDesc("weir_media_repairs_total", "Retransmissions requested by viewers and links: sent, or withheld beyond their share of the stream.", []string{"result"}, nil)

// Describe implements prometheus.Collector.
func (c Repairs) Describe(ch chan<- *prometheus.Desc) { ch <- repairsDesc }

// Collect implements prometheus.Collector.
func (c Repairs) Collect(ch chan<- prometheus.Metric) {
	sent, withheld := c.SFU.Repairs()
	ch <- prometheus.MustNewConstMetric(repairsDesc, prometheus.CounterValue, float64(sent), "sent")
	ch <- prometheus.MustNewConstMetric(repairsDesc, prometheus.CounterValue, float64(withheld), "withheld")
}

// Traffic exports the bytes of each discovery protocol.
type Traffic struct{ Traffic func() []overlay.Usage }

var trafficDesc = prometheus.NewDesc("weir_discovery_bytes_total", "Bytes on the streams of a libp2p protocol.", []string{"protocol", "direction"}, nil)

// Describe implements prometheus.Collector.
func (c Traffic) Describe(ch chan<- *prometheus.Desc) { ch <- trafficDesc }

// Collect implements prometheus.Collector.
func (c Traffic) Collect(ch chan<- prometheus.Metric) {
	in, out := map[string]int64{}, map[string]int64{}
	for _, t := range c.Traffic() {
		name := shortProtocol(t.Protocol)
		in[name] += t.BytesIn
		out[name] += t.BytesOut
	}
	for name := range in {
		ch <- prometheus.MustNewConstMetric(trafficDesc, prometheus.CounterValue, float64(in[name]), name, "received")
		ch <- prometheus.MustNewConstMetric(trafficDesc, prometheus.CounterValue, float64(out[name]), name, "sent")
	}
}

// protocols are the names with byte counts of their own, as they stand in
// protocol IDs: after the network's name, or libp2p's.
var protocols = map[string]bool{
	"kad": true, "records": true, "reserve": true, "provision": true, "policy": true, "cascade": true, "relay": true,
	"id": true, "ping": true,
}

// shortProtocol returns the name in a protocol ID such as
// /weir/NETWORK/records/1, or other.
func shortProtocol(id string) string {
	if id == "" {
		return "negotiation"
	}
	parts := strings.Split(strings.TrimPrefix(id, "/"), "/")
	if parts[0] == "weir" && len(parts) > 2 {
		parts = parts[2:] // the network's name or hash is no label
	}
	for _, part := range parts {
		if protocols[part] {
			return Snake(part)
		}
	}
	return otherWord
}
