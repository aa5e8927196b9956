// Package policy decides which nodes qualify for a need, and which of those is
// best: a text in YAML or a [Policy] comes in, is compiled once, and then ranks
// candidates by their records. Out come a [Ranking], with the rule that
// rejected each and the terms of each score, and the [Comparison] of two
// policies.
//
// It is pure: no I/O, no goroutines, and no clock. A [Compiled] policy is safe
// for concurrent use.
package policy
