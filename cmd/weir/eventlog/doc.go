// Package eventlog keeps what has happened at a node, hands it to those who
// subscribe, and words it for the log and for people.
//
// In come events, from any goroutine; out go copies in order, and lines. [Hub.Run]
// writes the log on the goroutine of its caller, and a subscriber that is slow loses
// events rather than hold up the node.
package eventlog
