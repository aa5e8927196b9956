// Package dht keeps a node's capacity record alive at the holders of its topic
// and finds other nodes' records there: the libp2p host and kad-dht below it,
// advertising, holding and querying records, and placing a session or a pull
// on a node that reserved room for it.
//
// A topic's holders are the nodes closest to its key in the Kademlia sense.
// They answer from memory and are not trusted: every record is signed by the
// node it names, and whoever uses one verifies it. README.md has the protocol.
package dht
