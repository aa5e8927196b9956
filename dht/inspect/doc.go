// Package inspect answers what an operator asks of a network: why a node is
// alone, cut off or not chosen.
//
// What comes in: a [Report], the facts that a node has gathered about itself
// and its peers. What goes out: [Finding]s, each a code and the facts that the
// code rests on. There is no prose here, and no name of a flag or a command:
// who shows a finding to people words it.
//
// A Report is judged without a network, a clock or a goroutine.
package inspect
