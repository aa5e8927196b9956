// Package admin serves the admin API: what a node knows of itself and of its
// network, and what its operator may have it do.
//
// An [API] has no state of its own and starts no goroutines. Its types are
// those of package api.
package admin
