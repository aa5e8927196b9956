// Package shortfall lowers the belief in nodes that deliver less over cascade links
// than they should.
//
// In comes which share of a node's packets has arrived; out goes a belief in what
// the node claims, in [holder.Beliefs]. A [Judge] reaches other nodes by a function
// of its [Config], in a goroutine that [Config.Go] starts and its owner waits for.
package shortfall
