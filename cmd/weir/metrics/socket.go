package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"weir/sfu/udp"
)

// Socket exports what becomes of datagrams at the media socket, and how many of
// them the kernel is given, or gives, at once.
type Socket struct{ Socket *udp.Socket }

var (
	droppedDesc     = prometheus.NewDesc("weir_media_dropped_datagrams_total", "Datagrams received on the media socket and dropped, by reason.", []string{"reason"}, nil)
	refusedDesc     = prometheus.NewDesc("weir_media_refused_datagrams_total", "Datagrams that the kernel refused to send, by error.", []string{"reason"}, nil)
	batchesDesc     = prometheus.NewDesc("weir_media_batches_total", "Batched system calls that received datagrams or sent those of viewers and links.", []string{"direction"}, nil)
	messagesDesc    = prometheus.NewDesc("weir_media_batch_messages_total", "Messages moved by batched system calls: one datagram each, or several that the kernel joins or divides.", []string{"direction"}, nil)
	batchedDesc     = prometheus.NewDesc("weir_media_batch_datagrams_total", "Datagrams moved by batched system calls.", []string{"direction"}, nil)
	unsegmentedDesc = prometheus.NewDesc("weir_media_unsegmented_messages_total", "Messages that the kernel did not divide: their datagrams were sent one by one.", nil, nil)
	waitsDesc       = prometheus.NewDesc("weir_media_send_waits_total", "Sends that waited for room in the media socket's buffer.", nil, nil)
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
