package testnet

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// lockTime is how long Add and Retire wait for another process that starts or
// ends nodes in the same directory.
const lockTime = 15 * time.Second

// AddConfig is the configuration of nodes to add to a running testnet.
type AddConfig struct {
	N      int      // how many; 0: 1
	Region string   // of all of them; "": none
	Join   string   // token for weir node --join; "": by the addresses of a running node
	Flags  []string // further flags
	Force  bool     // even if the machine seems to have no room for that many
}

// Add starts further nodes in the testnet in dir, which outlive this process,
// and returns them when they are ready. Up's AddFlags come before cfg's flags.
// If a node does not become ready, it is ended, and the error has the end of
// its log.
func Add(ctx context.Context, dir string, cfg AddConfig) ([]Node, error) {
	if cfg.N == 0 {
		cfg.N = 1
	}
	if cfg.N < 0 {
		return nil, fmt.Errorf("%w: %d nodes to add", ErrInput, cfg.N)
	}
	n, unlock, err := openLocked(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if !cfg.Force {
		if err := MeasureRoom().check(cfg.N, len(n.Nodes())+cfg.N); err != nil {
			return nil, err
		}
	}
	join, err := n.joinFlags(cfg.Join)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, defaultTimeout, fmt.Errorf("not ready after %v", defaultTimeout))
	defer cancel()
	var added []Node
	for range cfg.N {
		name := fmt.Sprintf("n%d", len(n.Nodes())+1) // nodes are never removed from the list
		node := n.newNode(name, cfg.Region, join)
		node.Arg = append(append(node.Arg, n.state.AddFlags...), cfg.Flags...)
		if err := n.start(node); err != nil {
			return added, err
		}
		if err := n.awaitReady(ctx, name); err != nil {
			_ = n.Kill(name) // it may have ended already
			return added, err
		}
		added = append(added, n.Node(name))
	}
	return added, nil
}

// openLocked opens the testnet in dir while no other process starts or ends
// nodes there.
func openLocked(ctx context.Context, dir string) (n *Network, unlock func(), err error) {
	if n, err = Open(dir); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	tick := time.NewTicker(10 * poll)
	defer tick.Stop()
	for {
		if unlock, err = lock(n.dir); !errors.Is(err, ErrBusy) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil, err
		}
	}
	if err != nil {
		return nil, nil, err
	}
	if n, err = Open(dir); err != nil { // its state under the lock
		unlock()
		return nil, nil, err
	}
	return n, unlock, nil
}

// joinFlags are the flags by which a further node joins.
func (n *Network) joinFlags(token string) ([]string, error) {
	if token != "" {
		return []string{"--join", token}, nil
	}
	if n.state.listed() {
		return []string{"--discovery", string(n.state.Discovery), "--server-list", n.dir + "/" + serverFile}, nil
	}
	var flags []string
	for _, node := range n.Nodes() {
		if !alive(node.PID, node.Start) || len(flags) > 8 {
			continue
		}
		for _, a := range node.P2P {
			flags = append(flags, "--bootstrap", a)
		}
	}
	if len(flags) == 0 {
		return nil, fmt.Errorf("%w: no node runs that another could join by", ErrInput)
	}
	return flags, nil
}

// Retire records that the node of that ID ends by itself, as intended: it is
// not dead.
func Retire(ctx context.Context, dir string, id peer.ID) (Node, error) {
	n, unlock, err := openLocked(ctx, dir)
	if err != nil {
		return Node{}, err
	}
	defer unlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.state.Nodes {
		if n.state.Nodes[i].PeerID == id {
			n.state.Nodes[i].Retired = true
			return n.state.Nodes[i], writeState(n.dir, n.state)
		}
	}
	return Node{}, fmt.Errorf("%w: no node has the ID %s", ErrInput, id)
}
