// Package holder decides which records a holder keeps and offers, when a node
// publishes, and how far a seeker trusts others. Package dht carries the
// decisions out.
//
// It is pure: no I/O and no goroutines; time and randomness are passed in.
package holder
