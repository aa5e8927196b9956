// Package directory decides which nodes hold the records of a topic.
//
// There is one [Directory] per discovery mode, each in a file of its own:
// kademlia.go, broker.go, pull.go and push.go. They differ in who is elected to
// hold, who votes on a name, who is asked and how many of them have to be heard,
// and in what holders tell publishers of each other. A fifth mode is one more
// file and its name in the table of [New].
//
// What comes in is what a node knows of others (a [View]: listed servers, the
// routing table, who answers) and the time. What goes out are peer IDs. Package
// dht asks, and sends the messages.
//
// Below the modes are [Cache], the holders that look-ups have found;
// [Sharding], in which shard of its region a node publishes; and [ServerList],
// the servers of the modes that need a list of them. Only [LookUps] and
// ServerList have a Run, whose caller owns its goroutine.
package directory
