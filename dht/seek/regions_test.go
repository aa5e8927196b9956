package seek

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/policy"
	"weir/dht/directory"
	"weir/dht/holder"
)

// newRegions makes the regions of a node that is in none, with an index that
// index reads.
func newRegions(t *testing.T, index func() ([]policy.Candidate, error)) *Regions {
	return &Regions{
		index:    func(context.Context) ([]policy.Candidate, error) { return index() },
		sharding: directory.NewSharding(capacitytest.ID(t, "me"), 0, 0),
		load:     func(context.Context, string) {},
		balance:  func() float64 { return 0 },
		whole:    func(time.Time) bool { return false },
		alone:    func() bool { return false },
		log:      slog.New(slog.DiscardHandler),
	}
}

// in is a node of region, so far away.
func in(region string, rtt time.Duration) policy.Candidate {
	return policy.Candidate{Record: capacity.Record{Region: region}, RTT: rtt}
}

// An index that is empty, or whose holders are silent, is read again soon; one
// that lists regions more and more seldom, and what was read last stands.
func TestRegionsAreReadLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var at []time.Duration
		x := newRegions(t, func() ([]policy.Candidate, error) {
			at = append(at, time.Since(start))
			switch len(at) {
			case 1, 2:
				return nil, nil
			case 3:
				return nil, errors.New("silent")
			case 4:
				return []policy.Candidate{in("us", 90*time.Millisecond), in("eu", 10*time.Millisecond), in("", 40*time.Millisecond), in("eu", 5*time.Millisecond)}, nil
			}
			return nil, errors.New("silent")
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := x.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run = %v", err)
		}
		var gaps []time.Duration
		for i := range at[1:] {
			gaps = append(gaps, at[i+1]-at[i])
		}
		for i, gap := range gaps {
			want := regionRetry
			for range i - 2 {
				want = min(2*want, directory.LookUpAge)
			}
			if gap < want || gap > want+time.Second {
				t.Errorf("read %d comes %v after the one before, want %v", i+2, gap, want)
			}
		}
		if want := []string{"eu", "", "us"}; !slices.Equal(x.Near(), want) {
			t.Errorf("near are %q, want %q", x.Near(), want)
		}
	})
}

// What a node may read without a query are whole regions, its own first; the
// index is read for it once.
func TestShards(t *testing.T) {
	reads := 0
	x := newRegions(t, func() ([]policy.Candidate, error) {
		reads++
		return []policy.Candidate{in("eu", 1), in("", 2), in("us", 3)}, nil
	})
	want := []holder.Topic{holder.ShardTopic("", ""), holder.ShardTopic("eu", ""), holder.ShardTopic("us", "")}
	for range 2 {
		if got := x.Shards(t.Context()); !slices.Equal(got, want) || reads != 1 {
			t.Errorf("%q after %d reads, want %q", got, reads, want)
		}
	}
	x.whole = func(time.Time) bool { return true }
	if got := x.Shards(t.Context()); !slices.Equal(got, []holder.Topic{holder.CapacityTopic()}) {
		t.Errorf("where all hold everything: %q", got)
	}
}

// However many regions there are, the depth of a bounded number is remembered.
func TestDepthsAreBounded(t *testing.T) {
	x := newRegions(t, nil)
	for i := range 3 * maxRegions {
		x.setDepth(fmt.Sprint(i), i)
		if len(x.depth) > maxRegions {
			t.Fatalf("%d depths", len(x.depth))
		}
	}
	if last := x.depthOf(fmt.Sprint(3*maxRegions - 1)); last != holder.MaxShardBits {
		t.Errorf("the last is split into %d bits, want %d", last, holder.MaxShardBits)
	}
	if m := x.shardMap(time.Now(), "eu"); m.Region != "eu" || m.Own != holder.ShardTopic("", "") || m.Depth("x") != 0 {
		t.Errorf("the map is %+v", m)
	}
}
