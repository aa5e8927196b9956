package api

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity/policy"
	"weir/dht"
)

// A PolicyVersion is one signed policy stored by a node.
type PolicyVersion struct {
	Version  uint64    `json:"version"`
	Name     string    `json:"name"`
	Issued   time.Time `json:"issued"` // by the operator's clock
	Operator peer.ID   `json:"operator"`
	Sum      string    `json:"sum"` // beginning of the text's SHA-256
	InForce  bool      `json:"in_force"`
	Text     string    `json:"text"`

	Sealed []byte `json:"-"` // as pushed
}

// A PolicyTrial is the effect that a policy would have in force, computed by
// one node from the records published now.
type PolicyTrial struct {
	Node    peer.ID     `json:"node"`
	InForce PolicyName  `json:"in_force"`
	Tried   PolicyName  `json:"tried"`
	Needs   []NeedTrial `json:"needs"`
	Recent  RecentTrial `json:"recent"`
	Silent  []peer.ID   `json:"silent"` // holders whose records may be missing
}

// A PolicyName identifies a policy.
type PolicyName struct {
	Name    string `json:"name"`
	Version uint64 `json:"version"`
}

// A NeedTrial is the effect for one need.
type NeedTrial struct {
	Topic dht.Topic        `json:"topic"`
	Need  dht.DecisionNeed `json:"need"`
	policy.Comparison
}

// A RecentTrial is the effect on the placements stored by the node, if they
// were requested again now.
type RecentTrial struct {
	Placements   int `json:"placements"`
	Before       int `json:"before"`        // for which a node passes under the policy in force
	After        int `json:"after"`         // and under the one tried
	FirstChanges int `json:"first_changes"` // for which another node would be the best
}

func (p PolicyName) String() string { return fmt.Sprintf("policy %q version %d", p.Name, p.Version) }
