package extension

import (
	"strings"
	"testing"
	"time"

	"weir/sfu/forward"
)

// told are the events of a text, and comments as ":".
func told(text string) string {
	var all []string
	for part := range strings.SplitSeq(strings.TrimSuffix(text, "\n\n"), "\n\n") {
		kind, _, _ := strings.Cut(strings.TrimPrefix(part, "event: "), "\n")
		all = append(all, kind)
	}
	return strings.Join(all, " ")
}

// What is told follows what is seen: state at once when it changes, counts and
// layers seldom, and nothing that was not asked for.
func TestNews(t *testing.T) {
	type step struct {
		at      time.Duration
		packets int64
		viewers int
		layers  string
		bitrate string
		want    string
	}
	for _, c := range []struct {
		name   string
		wanted []string
		again  bool
		steps  []step
	}{
		{"active, and again after a silence", kinds[:2], false, []step{
			{at: 0, packets: 10}, {at: 250, packets: 20, want: "active"}, {at: 500, packets: 30},
			{at: 2300, packets: 30}, {at: 2500, packets: 30, want: "inactive"}, {at: 5000, packets: 30},
			{at: 5250, packets: 31, want: "active"},
		}},
		{"a first reader is not told that it is inactive", kinds[:2], false, []step{{at: 0}, {at: 2000}, {at: 9000}}},
		{"another one is", kinds[:2], true, []step{{at: 0}, {at: 1900}, {at: 2000, want: "inactive"}, {at: 2250}}},
		{"silences of Opus do not count", kinds[:2], false, []step{{at: 0, packets: 1}, {at: 400, packets: 2, want: "active"}, {at: 800, packets: 3}, {at: 2700, packets: 3}, {at: 2750, packets: 4}, {at: 4700, packets: 4}}},
		{"viewers once a second", kinds[3:], false, []step{
			{at: 0, viewers: 1, want: "viewercount"}, {at: 250, viewers: 2}, {at: 500, viewers: 3}, {at: 1000, viewers: 3, want: "viewercount"}, {at: 9000, viewers: 3},
		}},
		{"layers when they change, bitrates each 5 s", kinds[2:3], false, []step{
			{at: 0, layers: "a", bitrate: "1", want: "layers"}, {at: 1000, layers: "a", bitrate: "2"}, {at: 2000, layers: "ab", bitrate: "2", want: "layers"},
			{at: 6000, layers: "ab", bitrate: "3"}, {at: 7000, layers: "ab", bitrate: "3", want: "layers"}, {at: 14000, layers: "ab", bitrate: "3"},
		}},
		{"what is not asked for is not told", kinds[:1], false, []step{{at: 0, viewers: 1, layers: "a"}, {at: 250, packets: 1, viewers: 2, layers: "b", want: "active"}, {at: 9000, packets: 1}}},
		{"something each 15 s", kinds[:1], false, []step{{at: 0}, {at: 14_000}, {at: 15_000, want: ":"}, {at: 29_000}, {at: 30_000, want: ":"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			began := time.Unix(1000, 0)
			n := news{wanted: c.wanted, again: c.again, began: began}
			for _, s := range c.steps {
				now := state{at: began.Add(s.at * time.Millisecond), packets: s.packets, viewers: s.viewers}
				if s.layers != "" {
					now.layers = &layers{text: s.layers + s.bitrate, shape: s.layers}
				}
				if got := told(n.next(now)); got != s.want {
					t.Errorf("after %v ms: %q, want %q", int(s.at), got, s.want)
				}
			}
		})
	}
}

// The layers event names a layer by what the layer extension takes.
func TestLayersEvent(t *testing.T) {
	got := layersOf(map[int][]forward.Layer{1: {{RID: "l", Active: true, Bitrate: 100, Width: 320, Height: 180}, {RID: "h"}}})
	want := `{"1":[{"rid":"l","spatialLayerId":0,"temporalLayerId":0,"active":true,"bitrate":100,"width":320,"height":180},{"rid":"h","spatialLayerId":0,"temporalLayerId":0,"active":false}]}`
	if got.text != want {
		t.Errorf("got  %s\nwant %s", got.text, want)
	}
	other := layersOf(map[int][]forward.Layer{1: {{RID: "l", Active: true, Bitrate: 200, Width: 320, Height: 180}, {RID: "h"}}})
	if got.shape != other.shape || got.text == other.text {
		t.Error("a bitrate makes another shape")
	}
}
