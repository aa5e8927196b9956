package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"golang.org/x/sync/errgroup"
)

const (
	DialTimeout  = 3 * time.Second // for one attempt to connect
	retryFirst   = 500 * time.Millisecond
	retryMost    = 30 * time.Second
	memberCheck  = 2 * time.Second // how often an open connection is checked
	rememberTime = 10 * time.Second
)

// A backoff spaces out attempts: twice as long each time, ±25 % at random so
// that many nodes do not retry at once.
type backoff struct {
	first, most time.Duration
	next        time.Duration
}

func (b *backoff) reset() { b.next = 0 }

// wait returns how long to wait before the next attempt; rnd is within [0, 1).
func (b *backoff) wait(rnd float64) time.Duration {
	b.next = min(max(b.first, 2*b.next), b.most)
	return time.Duration(float64(b.next) * (0.75 + rnd/2))
}

// A joiner connects the node to its network, and reconnects it after it was cut
// off.
type joiner struct{ *Overlay }

// run connects to every bootstrap peer, each independently and without end, and
// to remembered peers while it knows no other node, announces readiness, and
// remembers peers.
func (j *joiner) run(ctx context.Context) error {
	var peers []peer.AddrInfo
	for _, ai := range j.cfg.Bootstrap {
		if i := slices.IndexFunc(peers, func(known peer.AddrInfo) bool { return known.ID == ai.ID }); i >= 0 {
			peers[i].Addrs = append(slices.Clone(peers[i].Addrs), ai.Addrs...) // another address of it
		} else if ai.ID != j.ID() {
			peers = append(peers, ai)
		}
	}
	remembered, err := ReadPeerFile(j.cfg.PeerFile)
	if err != nil {
		j.cfg.Log.Warn("remembered peers not read; going on without", "file", j.cfg.PeerFile, "err", err)
	}

	if at := Elsewhere(j.ID(), j.cfg.Bootstrap, j.OwnAddrs()); len(at) > 0 {
		j.cfg.Log.Warn("bootstrap address names this node's own identity at an address that is not its own: if a node runs there, one of the two is a copy and must get an identity of its own", "at", at)
	}

	g, ctx := errgroup.WithContext(ctx)
	var tried sync.WaitGroup
	for _, ai := range peers {
		tried.Add(1)
		g.Go(func() error { return j.keepConnected(ctx, ai, sync.OnceFunc(tried.Done)) })
	}
	tried.Add(1)
	g.Go(func() error { return j.rejoin(ctx, remembered, sync.OnceFunc(tried.Done)) })
	if len(j.cfg.Seeds) > 0 {
		tried.Add(1)
		g.Go(func() error { return j.seek(ctx, newSeeker(j.cfg.Seeds), sync.OnceFunc(tried.Done)) })
	}
	g.Go(func() error {
		tried.Wait() // bounded: each attempt has its own deadline
		close(j.tried)
		return j.noticeJoining(ctx)
	})
	if j.cfg.PeerFile != "" {
		g.Go(func() error { return j.remember(ctx, remembered) })
	}
	return g.Wait()
}

// keepConnected connects to ai whenever there is no connection, until ctx ends.
// Tried is called after the first attempt.
func (j *joiner) keepConnected(ctx context.Context, ai peer.AddrInfo, tried func()) error {
	defer tried()
	retry := backoff{first: retryFirst, most: retryMost}
	said := LogBackoff{}
	for {
		pause := memberCheck
		if !j.Peers.Connected(ai.ID) {
			if err := j.Peers.Connect(ctx, ai); err == nil {
				retry.reset()
				said = LogBackoff{}
				if j.Peers.Member(ai.ID) {
					j.cfg.Log.Info("bootstrap peer connected", "peer", ai.ID)
				} else {
					j.cfg.Log.Warn("bootstrap peer is no node of this network: give both the same network, or name another peer", "peer", ai.ID)
				}
			} else if ctx.Err() == nil {
				pause = retry.wait(rand.Float64())
				level := slog.LevelDebug
				if said.Due(time.Now()) {
					level = slog.LevelWarn
				}
				j.cfg.Log.Log(ctx, level, "bootstrap peer not reached, trying on", "peer", ai.ID, "for", said.since(time.Now()).Round(time.Second), "err", DialError(err))
			}
		}
		tried()
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// LogBackoff spaces out log messages about a lasting failure: at once, after a
// minute, and then half as often each time, at least once in an hour. The zero
// value has logged nothing.
type LogBackoff struct {
	began, next time.Time
	pause       time.Duration
}

func (s *LogBackoff) Due(now time.Time) bool {
	if s.began.IsZero() {
		s.began = now
	}
	if now.Before(s.next) {
		return false
	}
	s.pause = min(max(time.Minute, 2*s.pause), time.Hour)
	s.next = now.Add(s.pause)
	return true
}

func (s *LogBackoff) since(now time.Time) time.Duration { return now.Sub(s.began) }

// DialError returns err in one line: libp2p's has a line for each address.
func DialError(err error) error {
	var d *swarm.DialError
	if !errors.As(err, &d) || len(d.DialErrors) == 0 {
		return err
	}
	cause := d.DialErrors[0].Cause
	for inner := errors.Unwrap(cause); inner != nil; inner = errors.Unwrap(inner) {
		cause = inner
	}
	if len(d.DialErrors) == 1 {
		return fmt.Errorf("%s: %w", d.DialErrors[0].Address, cause)
	}
	return fmt.Errorf("%s and %d more: %w", d.DialErrors[0].Address, len(d.DialErrors)-1+d.Skipped, cause)
}

// rejoin tries the listed servers and the remembered peers whenever the routing
// table is empty, with back-off, and makes kad-dht check connected peers again.
// Tried is called after the first round.
func (j *joiner) rejoin(ctx context.Context, remembered []peer.AddrInfo, tried func()) error {
	defer tried()
	retry := backoff{first: retryFirst, most: retryMost}
	for {
		pause := memberCheck
		if j.Kad.RoutingTable().Size() > 0 {
			retry.reset()
		} else {
			remembered = j.recall(remembered)
			j.connectAny(ctx, slices.Concat(j.listed(), remembered), tried)
			_ = j.Kad.Bootstrap(ctx) // never fails; adds connected peers
			pause = retry.wait(rand.Float64())
		}
		tried()
		select {
		case <-time.After(pause):
		case <-j.changed:
			// A peer connected or disconnected. Give kad-dht a moment to add it
			// to its table, or to notice the loss.
			select {
			case <-time.After(retryFirst / 2):
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// recall adds peers met since to those remembered, newest first.
func (j *joiner) recall(remembered []peer.AddrInfo) []peer.AddrInfo {
	return mergePeers(j.Peers.Members(), remembered)
}

// listed are some of the listed servers, to join by if no bootstrap peers are
// given.
func (j *joiner) listed() []peer.AddrInfo {
	if j.cfg.Servers == nil || len(j.cfg.Bootstrap)+len(j.cfg.Seeds) > 0 {
		return nil
	}
	servers := slices.Clone(j.cfg.Servers())
	for _, ai := range servers {
		j.cfg.Gate.Name(ai.Addrs...)
	}
	rand.Shuffle(len(servers), func(i, j int) { servers[i], servers[j] = servers[j], servers[i] })
	return servers[:min(len(servers), maxRemembered)]
}

// connectAny tries all of peers, some at a time, and calls tried as soon as one
// is connected.
func (j *joiner) connectAny(ctx context.Context, peers []peer.AddrInfo, tried func()) {
	ctx, cancel := context.WithTimeout(ctx, 2*DialTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(16)
	for _, ai := range peers {
		if ai.ID == j.ID() || ctx.Err() != nil {
			continue
		}
		g.Go(func() error {
			if err := j.Peers.Connect(ctx, ai); err != nil {
				j.cfg.Log.Debug("remembered peer not reached", "peer", ai.ID, "err", err)
				return nil
			}
			tried()
			return nil
		})
	}
	_ = g.Wait()
}

// noticeJoining logs that a node which failed to join at first is connected to
// others at last.
func (j *joiner) noticeJoining(ctx context.Context) error {
	alone := len(j.cfg.Bootstrap)+len(j.cfg.Seeds) > 0 && j.Peers.Alone()
	tick := time.NewTicker(memberCheck)
	defer tick.Stop()
	for alone {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if alone = j.Peers.Alone(); !alone {
			j.cfg.Log.Info("network joined", "network", j.cfg.Network, "peers", len(j.Peers.Members()))
		}
	}
	return nil
}

// remember keeps the peer file up to date, and writes it once more at the end.
func (j *joiner) remember(ctx context.Context, known []peer.AddrInfo) error {
	tick := time.NewTicker(rememberTime)
	defer tick.Stop()
	soon := time.After(2 * time.Second) // after joining, not ten seconds later
	keeper := peerKeeper{path: j.cfg.PeerFile, log: j.cfg.Log}
	for {
		select {
		case <-soon:
		case <-tick.C:
		case <-ctx.Done():
		}
		known = mergePeers(j.Peers.Members(), known)
		keeper.keep(known)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}
