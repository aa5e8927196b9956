// Package placing carries out in the network what the media part of a node asks:
// which node carries a stream, which takes a client that this one cannot, who
// publishes a name. Needs come in; helpers with their leases, and refusals that
// say why, go out. It decides nothing: package dht/place does.
//
// It starts no goroutines: each call ends with its context.
package placing
