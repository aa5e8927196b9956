// Package daemon is weir node: discovery and media joined, and run until the
// process is to end.
//
// [Command] reads flags, environment and file into a configuration, binds what
// it names, and composes the parts: what the node does is in packages of their
// own, which are given functions and narrow types. One errgroup, in node.run,
// has every goroutine that lives as long as the process.
package daemon
