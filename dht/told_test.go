package dht

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	cpb "weir/capacity/pb"
	"weir/dht/directory"
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
		var all told
		for i, s := range c.samples {
			sent := now.Add(time.Duration(i) * time.Second)
			peersClock := sent.Add(s.out + s.offset)
			got := sent.Add(s.out + s.back)
			all.take(got, got, "p", &pb.FetchReply{NowMs: peersClock.UnixMilli()}, s.out+s.back)
		}
		if got := all.of("p"); !got.timed || (got.clock-c.want).Abs() > c.within {
			t.Errorf("%s: %v, want %v", name, got.clock, c.want)
		}
	}
}

// What a peer says of itself is bounded, however absurd.
func TestTellingsAreBounded(t *testing.T) {
	var all told
	now := time.Now()
	for _, at := range []int64{math.MaxInt64, math.MinInt64, 1, math.MaxInt64} {
		all.take(now, now, "p", &pb.FetchReply{
			NowMs: at, Mode: "whatever", Version: "1.0\x1b[31m" + strings.Repeat("x", 1_000),
			HeldRecords: math.MaxUint32, Coordinate: &cpb.Coordinate{Vec: []float32{1}},
		}, time.Millisecond)
		got := all.of("p")
		if got.clock.Abs() > maxClock || got.mode != "" || len(got.vers) > maxVersion || strings.Contains(got.vers, "\x1b") || got.coords != nil {
			t.Errorf("took %+v", got)
		}
	}
	for i := range maxTold + 10 {
		all.take(now.Add(time.Duration(i)*time.Second), now, peer.ID(fmt.Sprint(i)), &pb.FetchReply{}, 0)
	}
	if len(all.peers) > maxTold {
		t.Errorf("%d peers remembered", len(all.peers))
	}
	if all.of("nobody").timed || !all.of("nobody").at.IsZero() {
		t.Error("something known of nobody")
	}
}

func TestWhoIsAskedNext(t *testing.T) {
	var all told
	now := time.Now()
	peers := []peer.ID{"a", "b", "c"}
	order := ""
	for i := range 7 {
		p, fresh := all.next(peers)
		if fresh != (i < 3) {
			t.Errorf("ask %d, of %s: fresh is %v", i, p, fresh)
		}
		all.asked(now.Add(time.Duration(i)*time.Second), p)
		order += string(p)
	}
	if order != "abcabca" {
		t.Errorf("asked in the order %s", order)
	}
	if p, _ := all.next(nil); p != "" {
		t.Errorf("asked %q of nobody", p)
	}
}

// Peers tell what they hold, how their clock is set and how sure they are of
// their place.
func TestPeersTellOfThemselves(t *testing.T) {
	const ahead = 42 * time.Second
	made := 0
	nodes := newTestNetworkOf(t, 3, func(int, *testNode) {}, func(c *Config) {
		if made++; made == 2 {
			c.ClockOffset = ahead
		}
	})
	eventually(t, func() error {
		list := nodes[0].Peers()
		if len(list) != 2 {
			return fmt.Errorf("%d peers", len(list))
		}
		for _, p := range list {
			want := 0.0
			if p.ID == nodes[1].ID() {
				want = float64(ahead.Milliseconds())
			}
			switch {
			case p.Told.IsZero():
				return fmt.Errorf("%s has not been asked", p.ID)
			case !p.Member || !p.Connected || p.Discovery != directory.Kademlia || p.RTT == 0 || p.CoordinateError == 0:
				return fmt.Errorf("%+v", p)
			case p.Holds < 3 || p.HoldsTopics == 0:
				return fmt.Errorf("%s holds %d records in %d topics", p.ID, p.Holds, p.HoldsTopics)
			case math.Abs(p.ClockOffset-want) > 1_000:
				return fmt.Errorf("the clock of %s is off by %v ms, want %v", p.ID, p.ClockOffset, want)
			}
		}
		if n := nodes[0].told.of(nodes[1].ID()); !n.timed {
			return errors.New("no clock")
		}
		return nil
	})
}
