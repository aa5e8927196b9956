package model

import (
	"math"
	"testing"
	"time"

	"weir/dht/directory"
	"weir/testnet/lab"
)

func params(t testing.TB) Params {
	t.Helper()
	s, err := SizesOf()
	if err != nil {
		t.Fatal(err)
	}
	return Params{
		Map: lab.NewGeography(1, 4, 100*time.Millisecond), Regions: 4, Seed: 1, Trials: 1_000,
		Rate: 0.3, Confirmed: 0.4, Whole: 0.1, Sizes: s,
	}
}

func TestSizes(t *testing.T) {
	s := params(t).Sizes
	t.Logf("%+v", s)
	if s.Record < 250 || s.Record > 450 {
		t.Errorf("a sealed record has %.0f bytes, want 250 to 450", s.Record)
	}
	for name, c := range map[string][2]float64{
		"an advertisement contains the record": {s.Advertise, s.Record},
		"an update is shorter than that":       {s.Advertise, 2 * s.Asking},
		"one not confirmed is shorter yet":     {s.Asking, s.Datagram},
		"an answer is shorter by datagram":     {s.AdvertiseReply, s.Answer},
		"offers are what makes a reply long":   {s.reply(2), 2 * s.reply(0)},
		"a lease comes with the record":        {s.ReserveReply, s.Record},
		"redis stores the record as it is":     {s.RedisSet, s.Record},
	} {
		if c[0] <= c[1] {
			t.Errorf("%s: %.0f, %.0f", name, c[0], c[1])
		}
	}
}

func TestBusiest(t *testing.T) {
	for name, c := range map[string]struct {
		n, topics, chance, want float64
	}{
		"everybody holds everything":             {8, 4, 1, 4},
		"one topic has its holders":              {1_000, 1, 0.008, 1},
		"of few topics nobody holds more":        {20, 2, 0.4, 2},
		"a million nodes, 8,192 topics: four":    {1e6, 8_192, 8e-6, 4},
		"no more than there are, however likely": {1e6, 3, 0.9, 3},
	} {
		if got := busiest(c.n, c.topics, c.chance); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestShards(t *testing.T) {
	for region, want := range map[float64]int{5: 1, directory.DefaultSplit: 1, directory.DefaultSplit + 1: 2, 2 * directory.DefaultSplit: 2, 2*directory.DefaultSplit + 1: 4, 250_000: 2_048} {
		if got := shardsOf(region); got != want {
			t.Errorf("a region of %v nodes has %d shards, want %d", region, got, want)
		}
	}
}

// Known properties of each mode, at any size.
func TestModesScaleAsTheyMust(t *testing.T) {
	p := params(t)
	row := func(mode string, n int) Row { return Reckon(p, mode, n) }
	for _, m := range Modes {
		small, large := row(m, 1_000), row(m, 100_000)
		grows := func(what string, a, b float64, want bool) {
			t.Helper()
			if got := b > 10*a; got != want {
				t.Errorf("%s: %s %.4g with 1,000 nodes and %.4g with 100,000", m, what, a, b)
			}
		}
		grows("bytes per selection", small.Bytes, large.Bytes, m == "redis") // pull is cut off by place.PollTime, so it does not reach all nodes
		grows("busiest", small.Busiest, large.Busiest, m == "broker-1" || m == "broker-3" || m == "push" || m == "redis")
		grows("upkeep", small.Upkeep, large.Upkeep, m == "push")
		if small.TimeP50 <= 0 || small.TimeP99 < small.TimeP50 || math.IsInf(large.TimeP99, 0) {
			t.Errorf("%s: times %+v", m, small)
		}
		if again := row(m, 1_000); again != small {
			t.Errorf("%s: the same seed gave %+v and then %+v", m, small, again)
		}
	}
	if a, b := row("kademlia", 100_000), row("broker-1", 100_000); a.TimeP50 > b.TimeP50 || a.Busiest > b.Busiest/10 {
		t.Errorf("at 100,000 nodes the DHT takes %+v, a broker %+v", a, b)
	}
	if got := lookup(1_024 * 20); got != 60 {
		t.Errorf("a look-up among 20,480 nodes takes %v messages, want 60", got)
	}
}
