package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"weir/sfu/udp"
)

// Socket exports what becomes of datagrams at the media socket, and how many of
// them the kernel is given, or gives, at once.
type Socket struct{ Socket *udp.Socket }

var (
	droppedDesc     = prometheus.NewDesc("weir_media_dropped_datagrams_total", "Datagrams that were not taken from the media socket, by why.", []string{"reason"}, nil)
	refusedDesc     = prometheus.NewDesc("weir_media_refused_datagrams_total", "Datagrams that the kernel did not send, by its error.", []string{"reason"}, nil)
	batchesDesc     = prometheus.NewDesc("weir_media_batches_total", "System calls that read datagrams, or sent those of viewers and links that were gathered.", []string{"direction"}, nil)
	messagesDesc    = prometheus.NewDesc("weir_media_batch_messages_total", "Messages of those system calls, each of one datagram or of some that the kernel joins or divides.", []string{"direction"}, nil)
	batchedDesc     = prometheus.NewDesc("weir_media_batch_datagrams_total", "Datagrams of those system calls.", []string{"direction"}, nil)
	unsegmentedDesc = prometheus.NewDesc("weir_media_unsegmented_messages_total", "Messages that the kernel did not divide, so that their datagrams were sent one by one.", nil, nil)
	waitsDesc       = prometheus.NewDesc("weir_media_send_waits_total", "Times that sending waited for room in the media socket's buffer.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c Socket) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{droppedDesc, refusedDesc, batchesDesc, messagesDesc, batchedDesc, unsegmentedDesc, waitsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c Socket) Collect(ch chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	counts := c.Socket.Counters()
	for reason, n := range counts.Dropped {
		put(droppedDesc, n, Snake(reason))
	}
	for reason, n := range counts.Refused {
		put(refusedDesc, n, Snake(reason))
	}
	for direction, b := range map[string]udp.BatchCounters{"received": counts.Reads, "sent": counts.Sends} {
		put(batchesDesc, b.Calls, direction)
		put(messagesDesc, b.Messages, direction)
		put(batchedDesc, b.Datagrams, direction)
	}
	put(unsegmentedDesc, counts.Unsegmented)
	put(waitsDesc, counts.Waits)
}
