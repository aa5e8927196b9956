package daemon

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"weir/capacity/event"
	"weir/capacity/ledger"
	"weir/cmd/weir/api"
	"weir/cmd/weir/config"
	"weir/cmd/weir/policies"
	"weir/cmd/weir/supervise"
)

// LiveSettings are the settings that take effect while the node runs. Every
// other one needs a restart.
var LiveSettings = []string{
	"session-limit", "address-sessions", "stream-limit", "uplink-limit", "packet-limit", "cpu-limit",
	"delay-limit", "fanout", "overflow", "linger", "policy", "stop-timeout", "log-level",
}

// A reloadable is a part of the node with files of its own, which it reads
// again when the configuration is reloaded. If reload fails, the part keeps its
// state. nodeConfigOf has checked the settings that a part reads.
type reloadable struct {
	name   string
	reload func() error
}

// reloading reads the configuration again while the node runs, and knows the
// one in force and the outcome of the last reload.
type reloading struct {
	sources Sources
	tuned   *atomic.Pointer[tunable] // changes with a reload, as the next three do
	ledger  *ledger.Ledger
	level   *slog.LevelVar
	policy  *policies.File
	parts   []reloadable
	notify  supervise.Notifier
	ready   func() bool // the node is in its network
	publish func()      // has the node's record published at once
	event   func(event.Event)

	one sync.Mutex // serializes reloads

	mu       sync.Mutex
	settings []api.Setting
	last     *api.Reload // nil: never
	counts   map[string]uint64
	good     time.Time // when it was last applied; the start at first
}

func (r *reloading) begin(in []api.Setting) {
	r.settings, r.good, r.counts = in, time.Now(), map[string]uint64{}
}

// done stores the outcome of a reload, and the settings if they are in force.
func (r *reloading) done(report api.Reload, in []api.Setting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = &report
	r.counts[report.Outcome]++
	if report.Outcome != api.ReloadRefused {
		r.settings = in
	}
	if report.Outcome == api.ReloadApplied {
		r.good = report.At
	}
}

// register adds the reload metrics of Prometheus itself, under the same names.
func (r *reloading) register(reg *prometheus.Registry) {
	locked := func(f func() float64) func() float64 {
		return func() float64 {
			r.mu.Lock()
			defer r.mu.Unlock()
			return f()
		}
	}
	reg.MustRegister(
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "weir", Name: "config_last_reload_successful", Help: "Whether the configuration was applied when it was last read, 0 or 1."}, locked(func() float64 {
			if r.last != nil && r.last.Outcome != api.ReloadApplied {
				return 0
			}
			return 1
		})),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "weir", Name: "config_last_reload_success_timestamp_seconds", Help: "When the configuration was last applied, Unix time."}, locked(func() float64 { return float64(r.good.UnixMilli()) / 1000 })),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "weir", Name: "config_settings_pending_restart", Help: "Changed settings of the configuration that need a restart."}, locked(func() float64 {
			n := 0
			for _, s := range r.settings {
				if s.Pending != nil {
					n++
				}
			}
			return float64(n)
		})),
	)
	for _, outcome := range []string{api.ReloadApplied, api.ReloadRefused, api.ReloadFailed} {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "weir", Name: "config_reloads_total", Help: "Readings of the configuration after the first, by outcome: applied, refused for mistakes, failed for a part's files.",
			ConstLabels: prometheus.Labels{"outcome": outcome},
		}, locked(func() float64 { return float64(r.counts[outcome]) })))
	}
}

// merged are the settings after a reload of next: live settings as in next, all
// others as before, with next's values pending.
func merged(before, next []api.Setting) (in []api.Setting, changed, restart []string) {
	for _, s := range next {
		i := slices.IndexFunc(before, func(b api.Setting) bool { return b.Name == s.Name })
		switch {
		case i < 0 || slices.Equal(before[i].Raw, s.Raw):
		case slices.Contains(LiveSettings, s.Name):
			changed = append(changed, s.Name)
		default:
			restart = append(restart, s.Name)
			pending := s.Values
			s = before[i]
			s.Pending = pending
		}
		in = append(in, s)
	}
	return in, changed, restart
}

// reload reads the configuration again and applies the live settings, or
// nothing if it has a mistake. Sessions, streams and links are not touched.
func (r *reloading) reload() (api.Reload, error) {
	r.one.Lock()
	defer r.one.Unlock()
	r.notify.Reloading()
	report, err := r.readAgain()
	r.notify.Reloaded(r.ready())
	kind := event.ConfigReloaded
	if report.Outcome != api.ReloadApplied {
		kind = event.ConfigRefused
	}
	r.event(event.Event{Kind: kind, Reason: report.Outcome, Detail: report.String()})
	return report, err
}

func (r *reloading) readAgain() (api.Reload, error) {
	report := api.Reload{At: time.Now(), Outcome: api.ReloadApplied, Changed: []string{}, Restart: []string{}, Errors: []string{}}
	next, err := r.sources.Load()
	if err != nil {
		faults := FaultsOf(next.File, err)
		report.Outcome, report.Errors = api.ReloadRefused, append(report.Errors, faults.Line())
		r.done(report, nil)
		return report, faults
	}
	in, changed, restart := merged(r.settings, next.Settings)
	report.Changed, report.Restart = append(report.Changed, changed...), append(report.Restart, restart...)

	r.tuned.Store(&next.cfg.live)
	r.ledger.SetLimits(next.cfg.live.limits)
	r.level.Set(next.cfg.live.level)
	if slices.Contains(changed, "policy") {
		r.policy.Take(next.cfg.policy)
	}
	var failed []error
	for _, part := range r.parts {
		if err := part.reload(); err != nil {
			err = fmt.Errorf("%s not taken, what it said before stays in force: %w", part.name, err)
			failed = append(failed, err)
			report.Outcome, report.Errors = api.ReloadFailed, append(report.Errors, config.MaskSecrets(err.Error()))
		}
	}
	r.publish() // the new limits
	r.done(report, in)
	return report, errors.Join(failed...)
}

// reply is the configuration in force.
func (r *reloading) reply() api.Config {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := api.Config{Settings: r.settings, Reload: r.last}
	for _, s := range c.Settings {
		if s.Name == config.FlagName && len(s.Values) > 0 {
			c.File = s.Values[0]
		}
	}
	return c
}
