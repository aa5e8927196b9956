// Package metrics counts and times what a node does, for Prometheus: decisions
// of placement, sessions, refusals, and what the parts of a node have counted
// themselves. It takes events and decisions, and gives collectors; which of them
// a node registers is the node's.
//
// It starts no goroutines. Label values come from bounded sets, whatever peers
// say.
package metrics
