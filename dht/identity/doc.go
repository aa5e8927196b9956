// Package identity keeps a node's private key in a file, from which it has its
// peer ID, and finds out when another process has the same one.
//
// [Load] reads or makes the key. [Copies] takes in signs of another process and
// the records that other nodes hold of this one, by functions of
// [CopiesConfig]; out go a line of the log, an event, and the record for
// diagnosis. [Copies.Run] is one goroutine, its caller's; nothing here knows a
// host.
package identity
