// Package policy decides which nodes qualify for a need, and which of those is
// best: a text in YAML or a [Policy] is compiled once, and then ranks
// candidates by their records. The result is a [Ranking], with the rule that
// rejected each candidate and the terms of each score, or the [Comparison] of
// two policies.
//
// It is pure: no I/O, no goroutines, and no clock. A [Compiled] policy is safe
// for concurrent use.
package policy
