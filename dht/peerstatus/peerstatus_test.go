package peerstatus

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	cpb "weir/capacity/pb"
	"weir/dht/pb"
)

func TestClockOffsetIsThatOfTheShortestRoundTrip(t *testing.T) {
	const ms = time.Millisecond
	now := time.Now()
	// A measurement: the peer's clock is ahead by offset, the request takes out
	// to arrive and the reply back.
	type sample struct{ offset, out, back time.Duration }
	for name, c := range map[string]struct {
		samples []sample
		want    time.Duration
		within  time.Duration
	}{
		"even ways":                        {[]sample{{3000 * ms, 20 * ms, 20 * ms}}, 3000 * ms, ms},
		"behind":                           {[]sample{{-90_000 * ms, 20 * ms, 20 * ms}}, -90_000 * ms, ms},
		"a slow answer after a fast one":   {[]sample{{0, 5 * ms, 5 * ms}, {0, 5 * ms, 405 * ms}}, 0, ms},
		"a fast answer after a slow one":   {[]sample{{0, 5 * ms, 405 * ms}, {0, 5 * ms, 5 * ms}}, 0, ms},
		"a clock that was set":             {[]sample{{5000 * ms, 5 * ms, 5 * ms}, {0, 50 * ms, 50 * ms}}, 0, ms},
		"one way only slow, and all there": {[]sample{{0, 0, 100 * ms}}, -50 * ms, ms},
	} {
		var all Log
		for i, s := range c.samples {
			sent := now.Add(time.Duration(i) * time.Second)
			peersClock := sent.Add(s.out + s.offset)
			got := sent.Add(s.out + s.back)
			all.Take(got, got, "p", &pb.FetchReply{NowMs: peersClock.UnixMilli()}, s.out+s.back)
		}
		if got := all.Of("p"); !got.Timed || (got.Clock-c.want).Abs() > c.within {
			t.Errorf("%s: %v, want %v", name, got.Clock, c.want)
		}
	}
}

// A peer's status is bounded, however absurd.
func TestStatusesAreBounded(t *testing.T) {
	var all Log
	now := time.Now()
	for _, at := range []int64{math.MaxInt64, math.MinInt64, 1, math.MaxInt64} {
		all.Take(now, now, "p", &pb.FetchReply{
			NowMs: at, Mode: "whatever", Version: "1.0\x1b[31m" + strings.Repeat("x", 1_000),
			HeldRecords: math.MaxUint32, Coordinate: &cpb.Coordinate{Vec: []float32{1}},
		}, time.Millisecond)
		got := all.Of("p")
		if got.Clock.Abs() > maxClock || got.Mode != "" || len(got.Release) > maxVersion || strings.Contains(got.Release, "\x1b") || got.Coordinate != nil {
			t.Errorf("took %+v", got)
		}
	}
	for i := range maxPeers + 10 {
		all.Take(now.Add(time.Duration(i)*time.Second), now, peer.ID(fmt.Sprint(i)), &pb.FetchReply{}, 0)
	}
	if len(all.peers) > maxPeers {
		t.Errorf("%d peers remembered", len(all.peers))
	}
	if all.Of("nobody").Timed || !all.Of("nobody").At.IsZero() {
		t.Error("something known of nobody")
	}
}

func TestWhoIsAskedNext(t *testing.T) {
	var all Log
	now := time.Now()
	peers := []peer.ID{"a", "b", "c"}
	order := ""
	for i := range 7 {
		p, fresh := all.Next(peers)
		if fresh != (i < 3) {
			t.Errorf("ask %d, of %s: fresh is %v", i, p, fresh)
		}
		all.Asked(now.Add(time.Duration(i)*time.Second), p)
		order += string(p)
	}
	if order != "abcabca" {
		t.Errorf("asked in the order %s", order)
	}
	if p, _ := all.Next(nil); p != "" {
		t.Errorf("asked %q of nobody", p)
	}
}
