// Package directory decides which nodes hold the records of a topic.
//
// There is one [Directory] per discovery mode, each in a file of its own:
// kademlia.go, broker.go, pull.go and push.go. They differ in which nodes hold,
// which vote on a name, which are asked and how many of them have to answer,
// and in what holders tell publishers about each other. A fifth mode is one
// more file and its name in the table of [New].
//
// The input is a node's view of others (a [View]: listed servers, the routing
// table, liveness) and the time. The output is peer IDs. Package dht sends the
// messages.
//
// Below the modes are [Cache], the holders that look-ups have found;
// [Sharding], the choice of the shard in which a node publishes; and
// [ServerList], the servers of the modes that need a list. Only [LookUps] and
// ServerList have a Run, whose caller owns its goroutine.
package directory
