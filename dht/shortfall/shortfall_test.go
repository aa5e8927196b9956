package shortfall

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/signed"
	"weir/dht/dhttest"
	"weir/dht/holder"
	"weir/dht/place"
)

// A node that falls short is judged by its claim at the time: by the record at
// hand, or by its own answer, which is verified.
func TestDelivered(t *testing.T) {
	key := dhttest.Key(t)
	id := dhttest.ID(t, key)
	now := time.Now()
	record := capacity.Record{Node: id, Seq: 2, Issued: time.UnixMilli(now.UnixMilli()), TTL: capacity.DefaultTTL, Sessions: capacity.Usage{Used: 8, Limit: 10}}
	sealed, err := signed.SealRecord(record, key)
	if err != nil {
		t.Fatal(err)
	}
	held := record
	held.Sessions.Used = 4
	for _, c := range []struct {
		name   string
		of     peer.ID
		share  float64
		held   uint64 // sequence number of the record held; 0: none
		answer [][]byte
		fail   error
		asked  bool
		want   float64
	}{
		{name: "delivers", of: id, share: deliversFully, held: 2, want: 1},
		{name: "no share", of: id, share: math.NaN(), held: 2, want: 1},
		{name: "its record is held", of: id, share: 0.5, held: 2, want: 0.2},
		{name: "it answers", of: id, share: 0.5, answer: [][]byte{sealed}, asked: true, want: 0.4},
		{name: "it does not answer", of: id, share: 0.5, fail: errors.New("gone"), asked: true, want: 1},
		{name: "it publishes nothing", of: id, share: 0.5, asked: true, want: 1},
		{name: "it answers garbage", of: id, share: 0.5, answer: [][]byte{[]byte("x")}, asked: true, want: 1},
		{name: "it answers for another", of: "other", share: 0.5, answer: [][]byte{sealed}, asked: true, want: 1},
	} {
		asked := false
		trusts := holder.NewReputation()
		New(Config{
			Reputation: trusts, Newest: place.NewMemory(),
			Held: func(time.Time, peer.ID) (capacity.Record, bool) {
				r := held
				r.Seq = c.held
				return r, c.held > 0
			},
			Fetch: func(context.Context, peer.ID) ([][]byte, error) {
				asked = true
				return c.answer, c.fail
			},
			Wall: func(now time.Time) time.Time { return now },
			Go:   func(f func(context.Context)) bool { f(t.Context()); return true },
			Log:  slog.New(slog.DiscardHandler),
		}).Delivered(c.of, c.share)
		if got := trusts.Of(time.Now(), c.of); math.Abs(got-c.want) > 0.01 || asked != c.asked {
			t.Errorf("%s: believed %v, asked %v; want %v, %v", c.name, got, asked, c.want, c.asked)
		}
		if got := trusts.Of(time.Now(), id); c.of != id && got != 1 {
			t.Errorf("%s: the other is believed %v", c.name, got)
		}
	}
}
