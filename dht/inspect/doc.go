// Package inspect answers what an operator asks of a network: why a node is
// alone, cut off or not chosen.
//
// What comes in: a [Report], the facts that a node has gathered about itself
// and its peers. What goes out: [Finding]s, each a code and the facts that the
// code rests on. There is no prose here, and no name of a flag or a command:
// who shows a finding to people words it.
//
// A Report is judged without a network, a clock or a goroutine. An [Examiner]
// gathers one, by goroutines that end before it returns. A [Reader] reads what
// holders hold, once or for as long as its caller likes, by a goroutine for each
// holder, which its caller's goroutine waits for. A [Prober] asks peers in turn what
// they say of themselves, by its caller's goroutine. All three reach the network by
// functions that they are given.
package inspect
