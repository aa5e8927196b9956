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
	// copyEvery is how far apart a node looks for a copy of itself that it has a
	// sign of. It looks copyTries times, copyPause apart: each of the two takes
	// the other's record away from the holders.
	copyEvery = time.Minute
	copyTries = 5
	copyPause = 2 * time.Second
	// copyTime bounds one look.
	copyTime = 3 * time.Second
	// copyFresh is how long a copy that was seen is told of.
	copyFresh = 5 * time.Minute
)

// CopiesConfig is what [Copies] works with; all of it is needed.
type CopiesConfig struct {
	// Held reads the records of this node that other nodes hold, verified, as
	// many as have come when ctx is done.
	Held func(ctx context.Context) []capacity.Record
	// Foreign reports whether this process has not published the record of this
	// node with sequence number seq.
	Foreign func(seq uint64) bool
	// Due spaces out what is said of a copy that stays. It is called with this
	// machine's time, once at a time.
	Due   func(now time.Time) bool
	Event func(event.Event) // must not block
	Log   *slog.Logger
}

// Copies finds out about another process with this node's identity.
type Copies struct {
	cfg       CopiesConfig
	suspected chan struct{}

	mu   sync.Mutex
	last capacity.Record // the zero one: none was seen
	at   time.Time
}

// NewCopies returns one that has seen no copy.
func NewCopies(cfg CopiesConfig) *Copies {
	return &Copies{cfg: cfg, suspected: make(chan struct{}, 1)}
}

// Suspect takes in that a holder had a record of this node that this process
// has not published: it is a copy's. It does not block.
func (c *Copies) Suspect() {
	select {
	case c.suspected <- struct{}{}:
	default:
	}
}

// Run looks for a copy once there is a sign of it, once a minute at most, until
// ctx is done, and returns ctx.Err(). It starts no goroutine.
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
		if !found { // nothing is known of it but that it is there
			c.note(capacity.Record{})
		}
		select {
		case <-time.After(copyEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look reads what holders have of this node, and reports whether another
// process's is among it.
func (c *Copies) look(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, copyTime)
	defer cancel()
	return c.Note(c.cfg.Held(ctx))
}

// Note takes in records of this node that other nodes hold, and reports whether
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

// note tells of another process with this node's identity, of which r is the
// record if it is known.
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
	c.cfg.Event(event.Event{Kind: event.NodeCopied, Detail: fmt.Sprintf("%s at %s", cmp.Or(r.URL, "no URL"), joinAddrs(r.Addrs))})
}

// Seen is the other process's record, the zero one if that is not known, and
// whether the process was noticed in the last five minutes.
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
