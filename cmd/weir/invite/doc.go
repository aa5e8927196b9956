// Package invite makes and reads the tokens by which a node joins a network,
// and sets flags of the node from one. It starts no goroutines.
package invite
