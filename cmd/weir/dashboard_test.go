package main

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	grafana "github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	paneltable "github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"go.yaml.in/yaml/v3"
)

// Grafana's own types accept the dashboard, with no unknown field.
func TestDashboardIsGrafanas(t *testing.T) {
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(paneltable.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterDataqueryVariant(grafana.VariantConfig())
	text, err := os.ReadFile("deploy/grafana.json")
	if err != nil {
		t.Fatal(err)
	}
	// No faults are an error too, whose text is empty, and then it keeps no panel.
	//lint:ignore SA1019 The newer form is for Grafana 12 and later only.
	if err := new(dashboard.Dashboard).UnmarshalJSONStrict(text); err != nil && err.Error() != "" {
		t.Fatal(err)
	}
	//lint:ignore SA1019 As above.
	var d dashboard.Dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	seen := map[uint32]string{}
	queries := 0
	for _, p := range d.Panels {
		if p.Panel == nil {
			continue // a row
		}
		title := *p.Panel.Title
		if other, twice := seen[*p.Panel.Id]; twice {
			t.Errorf("%q and %q have the same ID", title, other)
		}
		seen[*p.Panel.Id] = title
		at := *p.Panel.GridPos
		if at.X+at.W > 24 {
			t.Errorf("%q is wider than the page", title)
		}
		queries += len(p.Panel.Targets)
	}
	if queries < 40 {
		t.Errorf("it has %d queries", queries)
	}
}

// Each alert has a text for people and a severity, and the rules' own tests,
// which promtool runs, have it both firing and silent.
func TestAlertsAreTested(t *testing.T) {
	rules, err := os.ReadFile("deploy/prometheus-rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("deploy/prometheus-rules.test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	guide, err := os.ReadFile("../../.github/docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert               string
				Expr                string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(rules, &file); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, group := range file.Groups {
		for _, r := range group.Rules {
			names = append(names, r.Alert)
			if !slices.Contains([]string{"warning", "critical"}, r.Labels["severity"]) || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: %v, %v", r.Alert, r.Labels, r.Annotations)
			}
			firing := regexp.MustCompile(`samples: \[\{labels: 'ALERTS\{alertname="` + r.Alert + `"`)
			silent := regexp.MustCompile(`alertname="` + r.Alert + `",alertstate="firing"\}', eval_time: \d+m, exp_samples: \[\]`)
			if !firing.Match(tests) || !silent.Match(tests) {
				t.Errorf("%s is not tested both firing and silent", r.Alert)
			}
			if !strings.Contains(string(guide), "`"+r.Alert+"`") {
				t.Errorf("operating.md does not say what to do about %s", r.Alert)
			}
		}
	}
	if len(names) < 10 {
		t.Fatalf("found the alerts %v", names)
	}
}
