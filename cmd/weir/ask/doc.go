// Package ask is how commands reach the network: by the admin API of a running
// node, whose errors get their exit codes here, or by joining it for as long as
// the command lasts.
//
// A command that joins leaves by the function it is given.
package ask
