// Package api is what the admin API of a node says and takes, as the node, the
// commands and the tests exchange it; openapi.yaml describes it for others.
//
// It holds types, and starts no goroutines.
package api
