package policy_test

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/capacity/policy"
)

// All mistakes in a policy are reported at once, each with its place.
func ExampleParse() {
	_, err := policy.Parse("policy.yaml", []byte(`filter:
  - name: state
    expr: r.state == "full
score:
  - name: near
    expr: r.distance
    weight: -1
`))
	fmt.Println(err)

	// Output:
	// policy.yaml:3:27: rule "state": literal not terminated
	//         expr: r.state == "full
	//                               ^
	// policy.yaml:6:13: term "near": r and me have no field distance
	//         expr: r.distance
	//                 ^
}

// A policy filters the candidates for a need, and ranks those that pass.
func ExampleCompiled_Rank() {
	compiled, err := policy.Compile(policy.Policy{
		Keep: 2,
		Filter: []policy.Rule{
			{Name: "active", Expr: `r.state == "active"`},
			{Name: "uplink", Expr: "r.uplink_free >= q.uplink"},
		},
		Score: []policy.Term{
			{Name: "distance", Expr: "rtt", Weight: -0.01},
			{Name: "stress", Expr: "r.stress", Weight: -1},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	node := func(id string, sessions, uplink int64, rtt time.Duration) policy.Candidate {
		return policy.Candidate{RTT: rtt, Trust: 1, Record: capacity.Record{
			Node:     peer.ID(id),
			State:    capacity.Active,
			Sessions: capacity.Usage{Used: sessions, Limit: 100},
			Uplink:   capacity.Usage{Used: uplink, Limit: 100_000_000},
		}}
	}
	ranking := compiled.Rank(capacity.Need{Purpose: capacity.View, Stream: "demo", Uplink: 3_000_000}, capacity.Record{}, []policy.Candidate{
		node("near but half full", 50, 20_000_000, 5*time.Millisecond),
		node("far and empty", 0, 0, 80*time.Millisecond),
		node("out of uplink", 10, 99_000_000, time.Millisecond),
	})
	for _, e := range ranking.Passed {
		fmt.Printf("%.2f  %s\n", e.Score, string(e.Record.Node))
	}
	for _, e := range ranking.Rejected {
		fmt.Printf("rejected by %s: %s\n", e.Rule, string(e.Record.Node))
	}

	// Output:
	// -0.55  near but half full
	// -0.80  far and empty
	// rejected by uplink: out of uplink
}
