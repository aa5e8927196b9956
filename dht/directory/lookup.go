package directory

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/dht/holder"
)

const (
	// lookUpTime bounds one look-up: a hung peer makes the answer incomplete, not
	// late.
	lookUpTime = 1500 * time.Millisecond
	// lookUpsAtOnce bounds the concurrent look-ups of Run.
	lookUpsAtOnce = 4
)

// LookUps look up the holders of topics in the network, outside any placement
// as far as possible, and put them into a [Cache].
type LookUps struct {
	Cache     *Cache
	NetworkID string
	// Closest asks the network for the nodes closest to key.
	Closest func(ctx context.Context, key string) ([]peer.ID, error)
	// Alone reports whether there is no other node to ask.
	Alone func() bool
	// Whole reports whether all nodes hold everything; see [Directory].
	Whole func(now time.Time) bool
	Home  func() holder.Topic // its holders are always kept known
	Log   *slog.Logger
}

// Run looks up the holders of every topic in use, every few minutes or as soon as
// one is lost, until ctx is done, and returns ctx.Err(). The goroutines that it
// starts have ended by then.
func (l *LookUps) Run(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	slots := make(chan struct{}, lookUpsAtOnce)
	var wg sync.WaitGroup // look-ups in progress
	defer wg.Wait()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if l.Alone() {
			continue
		}
		now := time.Now()
		l.Cache.Use(now, l.Home())
		for _, topic := range l.Cache.due(now, l.Whole(now)) {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			wg.Go(func() {
				l.Now(ctx, topic)
				<-slots
			})
		}
	}
}

// Now looks up topic, for which [Cache.Begin] has returned true, and returns
// when the look-up has ended.
func (l *LookUps) Now(ctx context.Context, topic holder.Topic) {
	ctx, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	found, err := l.Closest(ctx, topic.Key(l.NetworkID))
	if err != nil && len(found) == 0 {
		l.Log.Debug("holders not looked up", "topic", topic, "err", err)
	}
	l.Cache.found(time.Now(), topic, found)
}
