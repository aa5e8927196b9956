// Package identity keeps a node's private key in a file, which determines its
// peer ID, and detects another process with the same key.
//
// [Load] reads or makes the key. [Copies] takes in signs of another process and
// this node's records at other nodes, by functions of [CopiesConfig]; its
// output is a log message, an event, and the record for diagnosis. [Copies.Run]
// is one goroutine, its caller's; nothing here knows a host.
package identity
