package testnet

import (
	"context"
	"errors"
	"io/fs"
	"sync"
)

// The states of a node's process.
const (
	Running = "running"
	Paused  = "paused" // by SIGSTOP
	Dead    = "dead"
	Retired = "retired" // it ended by itself, as intended
	Silent  = "silent"  // it runs, but its admin API does not answer
)

// NodeStatus is the current status of a node.
type NodeStatus struct {
	Node
	Alive bool   `json:"alive"`
	State string `json:"state"`

	// Reported by the node itself, if it is running.
	Load    string  `json:"load,omitempty"` // its record's state: active, full or draining
	Stress  float64 `json:"stress"`
	Streams int     `json:"streams"`
	Links   int     `json:"links"`
	Seen    int     `json:"records_seen"`
	// Sessions of WHIP and WHEP; a limit of 0 is none.
	Sessions struct {
		Used  int64 `json:"used"`
		Limit int64 `json:"limit"`
	} `json:"sessions"`
}

// Status requests the status of all nodes. A node that does not answer within a
// few seconds is Silent.
func (n *Network) Status(ctx context.Context) []NodeStatus {
	nodes := n.Nodes()
	all := make([]NodeStatus, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { all[i] = node.status(ctx) })
	}
	wg.Wait()
	return all
}

func (n Node) status(ctx context.Context) NodeStatus {
	s := NodeStatus{Node: n, State: Dead}
	p, err := lookup(n.PID, n.Start)
	if errors.Is(err, fs.ErrNotExist) {
		if n.Retired {
			s.State = Retired
		}
		return s
	}
	s.Alive, s.State = true, Running
	if p.state == 'T' {
		s.State = Paused
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	told, err := n.API().Status(ctx)
	if err != nil {
		s.State = Silent
		return s
	}
	s.Load, s.Stress, s.Streams, s.Links = told.State.String(), told.Stress, told.Streams, told.Links
	s.Sessions.Used, s.Sessions.Limit = told.Record.Sessions.Used, told.Record.Sessions.Limit
	if seen, err := n.Records(ctx); err == nil {
		s.Seen = len(seen)
	}
	return s
}
