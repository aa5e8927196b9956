// Package bind takes for a node what one process at a time can have: ports, and
// the data directory.
//
// A port that the operator named is taken or refused; a default one gives way
// to the next that is free. Errors name the flag to change. It starts no
// goroutines.
package bind
