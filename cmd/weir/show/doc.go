// Package show has the commands that show what a running node and its network
// do: status, peers, records, streams, sessions, events, placements, and top,
// which shows them all as they change.
//
// What others say is printed in cells, from which it cannot steer a terminal.
package show
