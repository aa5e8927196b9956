package policy

import (
	"fmt"
	"math"

	"github.com/expr-lang/expr/vm"

	"weir/capacity"
)

// A valueError is an expression that yields an invalid value.
type valueError struct{ error }

// tryOut runs a score's expression over nodes of every kind and returns an
// error for one for which the result is no finite number: most often it divides
// by a value that is 0 somewhere. A case that it misses is rejected in use, by
// the rule "score".
func tryOut(value *vm.Program) error {
	var machine vm.VM
	for _, s := range samples() {
		if x := number(&machine, value, &s.env); math.IsNaN(x) || math.IsInf(x, 0) {
			return valueError{fmt.Errorf("yields %v for %s: where it divides by something, say with ?: what holds when that is 0", x, s.what)}
		}
	}
	return nil
}

type sampleEnv struct {
	what string
	env  environment
}

// samples are nodes of every kind, as candidates for needs of every kind.
func samples() []sampleEnv {
	free := RecordVars{State: "active", URL: true, Trust: 1, UplinkFree: Unlimited, DownlinkFree: Unlimited, PacketsFree: Unlimited, SessionsFree: Unlimited, StreamsFree: Unlimited}
	idle := free
	idle.UplinkLimit, idle.UplinkFree = 1e9, 1e9
	idle.DownlinkLimit, idle.DownlinkFree = 1e9, 1e9
	idle.PacketsLimit, idle.PacketsFree = 1e5, 1e5
	idle.SessionsLimit, idle.SessionsFree = 500, 500
	idle.StreamsLimit, idle.StreamsFree = 100, 100
	idle.Cores, idle.Hash = 2, 0.5
	full := idle
	full.State, full.Stress, full.Then, full.CPU, full.CPUShare, full.Hash, full.Trust = "full", 1, 1.002, 1, 1, 1, 0
	full.UplinkUsed, full.UplinkFree = 1e9, 0
	full.DownlinkUsed, full.DownlinkFree = 1e9, 0
	full.PacketsUsed, full.PacketsFree = 1e5, 0
	full.SessionsUsed, full.SessionsFree = 500, 0
	full.StreamsUsed, full.StreamsFree = 100, 0
	carrier := idle
	carrier.Carries, carrier.Origin, carrier.FanoutFree, carrier.Viewers = true, true, Unlimited, 0
	relay := full
	relay.Carries, relay.Depth, relay.ParentRTT, relay.Viewers, relay.Children, relay.FanoutFree = true, 2, 40, 80, 8, 0
	over := full
	over.Stress, over.Then, over.UplinkFree, over.SessionsFree = 1.2, 1.2, -1e8, -3

	view := NeedVars{Purpose: "view", Depth: capacity.MaxDepth, Fanout: 16, Uplink: 2.5e6, Packets: 330}
	nothing := NeedVars{Purpose: "view", Depth: capacity.MaxDepth}
	cascade := NeedVars{Purpose: "cascade", Stream: "s", Region: "r", Depth: 4, Uplink: 2.5e6, Packets: 330}
	return []sampleEnv{
		{"a node without limits", environment{R: free, Q: nothing, Me: free}},
		{"an idle node", environment{R: idle, Q: view, Me: full, RTT: 30}},
		{"a full node", environment{R: full, Q: view, Me: idle}},
		{"a node beyond its limits", environment{R: over, Q: nothing, Me: over, RTT: 300}},
		{"the origin of a stream", environment{R: carrier, Q: cascade, Me: idle, RTT: 1}},
		{"a full relay of a stream", environment{R: relay, Q: cascade, Me: carrier, RTT: 40}},
	}
}
