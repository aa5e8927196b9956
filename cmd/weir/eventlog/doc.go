// Package eventlog stores the last events of a node, passes them to
// subscribers, and words them for the log and for people.
//
// Its input is events, from any goroutine; its output is copies in order, and
// lines. [Hub.Run] writes the log on the goroutine of its caller. A slow
// subscriber loses events; it never delays the node.
package eventlog
