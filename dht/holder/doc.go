// Package holder decides what a holder of records keeps and offers, what a
// node publishes, and whom a seeker tries first. Package dht carries it out.
//
// It is pure: no I/O and no goroutines; time and randomness are passed in.
package holder
