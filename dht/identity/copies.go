package identity

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/multiformats/go-multiaddr"

	"weir/capacity"
	"weir/capacity/event"
)

const (
	// copyEvery is how often a node searches for a suspected copy of itself. A
	// search has copyTries attempts, copyPause apart, because the two processes
	// replace each other's record at the holders.
	copyEvery = time.Minute
	copyTries = 5
	copyPause = 2 * time.Second
	// copyTime bounds one attempt.
	copyTime = 3 * time.Second
	// copyFresh is how long a copy is reported after it was seen.
	copyFresh = 5 * time.Minute
)

// CopiesConfig is a [Copies]' view of its node; all of it is needed.
type CopiesConfig struct {
	// Held reads and verifies the records of this node at other nodes, as many
	// as have come when ctx is done.
	Held func(ctx context.Context) []capacity.Record
	// Foreign reports whether another process published the record of this node
	// with sequence number seq.
	Foreign func(seq uint64) bool
	// Due spaces out the reports of a lasting copy. It is called with this
	// machine's time, by one goroutine at a time.
	Due   func(now time.Time) bool
	Event func(event.Event) // must not block
	Log   *slog.Logger
}

// Copies detects another process with this node's identity.
type Copies struct {
	cfg       CopiesConfig
	suspected chan struct{}

	mu   sync.Mutex
	last capacity.Record // zero: none was seen
	at   time.Time
}

// NewCopies returns a Copies that has seen no copy.
func NewCopies(cfg CopiesConfig) *Copies {
	return &Copies{cfg: cfg, suspected: make(chan struct{}, 1)}
}

// Suspect takes in that a holder had a record of this node that another process
// published. It does not block.
func (c *Copies) Suspect() {
	select {
	case c.suspected <- struct{}{}:
	default:
	}
}

// Run searches for a copy after a suspicion, once a minute at most, until ctx
// is done, and returns ctx.Err(). It starts no goroutine.
func (c *Copies) Run(ctx context.Context) error {
	for {
		select {
		case <-c.suspected:
		case <-ctx.Done():
			return ctx.Err()
		}
		found := false
		for try := 0; try < copyTries && !found; try++ {
			if found = c.look(ctx); !found {
				select {
				case <-time.After(copyPause):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		if !found { // only its existence is known
			c.note(capacity.Record{})
		}
		select {
		case <-time.After(copyEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look reads this node's records at holders, and reports whether another
// process's is among them.
func (c *Copies) look(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	return c.Note(c.cfg.Held(ctx))
}

// Note takes in records of this node at other nodes, and reports whether
// another process published any of them.
func (c *Copies) Note(held []capacity.Record) bool {
	var found capacity.Record
	for _, r := range held {
		if r.Seq > found.Seq && c.cfg.Foreign(r.Seq) {
			found = r
		}
	}
	if found.Seq == 0 {
		return false
	}
	c.note(found)
	return true
}

// note reports another process with this node's identity; r is its record, if
// known.
func (c *Copies) note(r capacity.Record) {
	now := time.Now()
	c.mu.Lock()
	if r.Seq > 0 || now.Sub(c.at) >= copyFresh {
		c.last = r
	}
	c.at = now
	say := c.cfg.Due(now)
	c.mu.Unlock()
	if !say {
		return
	}
	c.cfg.Log.Warn("this node's identity is used by another process too: one of the two must get an identity of its own",
		"name", r.Name, "url", r.URL, "addrs", joinAddrs(r.Addrs))
	c.cfg.Event(event.Event{Time: time.Now(), Kind: event.NodeCopied, Detail: fmt.Sprintf("%s at %s", cmp.Or(r.URL, "no URL"), joinAddrs(r.Addrs))})
}

// Seen is the other process's record, the zero one if unknown, and whether the
// process was noticed in the last five minutes.
func (c *Copies) Seen() (capacity.Record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last, !c.at.IsZero() && time.Since(c.at) < copyFresh
}

func joinAddrs(addrs []multiaddr.Multiaddr) string {
	if len(addrs) == 0 {
		return "no address"
	}
	all := make([]string, 0, len(addrs))
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, ", ")
}
