package capacity

import (
	"slices"
	"testing"
)

func TestStress(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    Record
		want float64
	}{
		{"an idle node has none", Record{Uplink: Usage{0, 100}, Sessions: Usage{0, 10}, CPULimit: 0.8}, 0},
		{"what has no limit does not count", Record{Uplink: Usage{100, 0}, Packets: Usage{100, 0}, Sessions: Usage{5, 0}, CPU: 0.9}, 0},
		{"uplink", Record{Uplink: Usage{40, 100}}, 0.4},
		{"what is reserved counts as used", Record{Uplink: Usage{40, 100}, Reserved: 20}, 0.6},
		{"packets", Record{Packets: Usage{30, 40}}, 0.75},
		{"sessions", Record{Sessions: Usage{4, 4}}, 1},
		{"CPU against its limit", Record{CPU: 0.4, CPULimit: 0.8}, 0.5},
		{"the nearest limit counts", Record{Uplink: Usage{1, 10}, Packets: Usage{2, 10}, Sessions: Usage{3, 10}, CPU: 0.4, CPULimit: 1}, 0.4},
		{"it can exceed 1", Record{Uplink: Usage{150, 100}}, 1.5},
		{"downlink and streams do not count", Record{Downlink: Usage{9, 10}, Streams: Usage{9, 10}}, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.r.Stress(); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestStressWith(t *testing.T) {
	view := Need{Purpose: View, Uplink: 10, Packets: 1}
	for _, tt := range []struct {
		name string
		r    Record
		need Need
		want float64
	}{
		{"uplink", Record{Uplink: Usage{40, 100}, Reserved: 20}, view, 0.7},
		{"packets", Record{Packets: Usage{30, 40}}, view, 0.775},
		{"a session", Record{Sessions: Usage{2, 4}}, view, 0.75},
		{"a cascade is no session", Record{Sessions: Usage{2, 4}}, Need{Purpose: Cascade, Uplink: 10}, 0.5},
		{"the CPU stays as it is", Record{CPU: 0.4, CPULimit: 0.8}, view, 0.5},
		{"what has no limit does not count", Record{Uplink: Usage{40, 0}}, view, 0},
	} {
		if got := tt.r.StressWith(tt.need); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
		if tt.r.Sessions.Used > 2 || tt.r.Uplink.Used > 40 {
			t.Errorf("%s: the record was changed", tt.name)
		}
	}
}

func TestHysteresis(t *testing.T) {
	for _, tt := range []struct {
		name   string
		h      Hysteresis
		stress []float64
		want   []bool
	}{
		{"starts free, and is full from 0.90 on", Hysteresis{}, []float64{0, 0.89, 0.90, 1.2}, []bool{false, false, true, true}},
		{"is free again at 0.72 only", Hysteresis{}, []float64{0.9, 0.89, 0.73, 0.72, 0.89}, []bool{true, true, true, false, false}},
		{"takes other thresholds", Hysteresis{Full: 0.5, Free: 0.25}, []float64{0.49, 0.5, 0.3, 0.25}, []bool{false, true, true, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []bool
			for _, s := range tt.stress {
				got = append(got, tt.h.Next(s))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
