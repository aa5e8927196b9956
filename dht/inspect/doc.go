// Package inspect answers an operator's questions about a network: why a node
// is alone, cut off or not chosen.
//
// The input is a [Report], the facts that a node has gathered about itself and
// its peers. The output is [Finding]s, each a code and the facts that it rests
// on. The package has no prose, and no name of a flag or a command: the program
// that shows a finding to people words it.
//
// A Report is evaluated without a network, a clock or a goroutine. An
// [Examiner] gathers one, by goroutines that end before it returns. A [Reader]
// reads the tables of holders, once or for as long as its caller likes, by a
// goroutine for each holder, which its caller's goroutine waits for. A [Prober]
// asks peers in turn for their status, by its caller's goroutine. All three
// reach the network by functions that they are given.
package inspect
