// Package shortfall lowers the trust in nodes that deliver less over cascade
// links than they should.
//
// The input is the share of a node's packets that has arrived; the output is
// the trust in the node's claims, in [holder.Reputation]. A [Judge] reaches
// other nodes by a function of its [Config], in a goroutine that [Config.Go]
// starts and its owner waits for.
package shortfall
