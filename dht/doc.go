// Package dht keeps a node's capacity record alive at the holders of its topic
// and finds other nodes' records there. It runs the libp2p host and kad-dht
// below it, advertises, holds and queries records, and places a session or a
// pull on a node that has reserved room for it.
//
// A topic's holders are the nodes closest to its key in the Kademlia sense.
// They answer from memory and are not trusted: every record is signed by the
// node it names, and its reader verifies it. README.md describes the protocol.
package dht
