// Package forward measures what it costs a WHIP and WHEP server to forward one
// stream to many viewers: CPU seconds a million packets, loss, delay, memory and
// the time to a first frame, beside the floor of the same machine in the same
// run.
//
// The server has one CPU and the generator ([load.Swarm]) another. Servers are
// compared within one run, round by round in turn, since a machine's figures
// change with its neighbours. Input is a [Config], output a [Report], which
// draws and prints itself. Linux only. Run owns what it starts and returns when
// all of it has ended.
package forward
