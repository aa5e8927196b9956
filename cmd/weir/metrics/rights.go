package metrics

import (
	"github.com/prometheus/client_golang/prometheus"

	"weir/sfu/rights"
)

// Rights exports the outcomes of checks, and the state of keys.
type Rights struct{ Rights *rights.Rights }

var (
	checksDesc    = prometheus.NewDesc("weir_rights_checks_total", "Checks of clients' rights, by token, hook or ticket, and outcome: allowed, refused or failed.", []string{"by", "outcome"}, nil)
	rightsEndDesc = prometheus.NewDesc("weir_rights_ended_sessions_total", "Sessions ended because their right ended, by reason.", []string{"reason"}, nil)
	heldDesc      = prometheus.NewDesc("weir_rights_granted", "Rights in use: sessions, and requests that have been checked.", nil, nil)
	keysDesc      = prometheus.NewDesc("weir_rights_keys", "Keys of tokens in force.", []string{"source"}, nil)
	keysReadDesc  = prometheus.NewDesc("weir_rights_keys_read_timestamp_seconds", "When the keys were last read successfully, Unix time; 0: never.", []string{"source"}, nil)
	keysReadsDesc = prometheus.NewDesc("weir_rights_keys_reads_total", "Reads of keys, by outcome: good or failed.", []string{"source", "outcome"}, nil)
)

// Describe implements prometheus.Collector.
func (c Rights) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{checksDesc, rightsEndDesc, heldDesc, keysDesc, keysReadDesc, keysReadsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c Rights) Collect(ch chan<- prometheus.Metric) {
	if c.Rights == nil {
		return
	}
	put := func(d *prometheus.Desc, t prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, t, v, labels...)
	}
	s := c.Rights.Status()
	put(heldDesc, prometheus.GaugeValue, float64(s.Granted))
	for which, n := range s.Checks {
		put(checksDesc, prometheus.CounterValue, float64(n), which[0], which[1])
	}
	for why, n := range s.Ended {
		put(rightsEndDesc, prometheus.CounterValue, float64(n), Snake(string(why)))
	}
	for _, src := range s.Sources {
		read := 0.0
		if !src.Read.IsZero() {
			read = float64(src.Read.UnixMilli()) / 1000
		}
		put(keysDesc, prometheus.GaugeValue, float64(src.Keys), src.Name)
		put(keysReadDesc, prometheus.GaugeValue, read, src.Name)
		put(keysReadsDesc, prometheus.CounterValue, float64(src.Good), src.Name, "good")
		put(keysReadsDesc, prometheus.CounterValue, float64(src.Failed), src.Name, "failed")
	}
}
