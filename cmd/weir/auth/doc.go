// Package auth has the flags of the right to publish and to view, the commands
// that make keys, secrets and tokens for it, and its check for the doctor.
//
// The rights themselves are in sfu/rights, which names no flag. It starts no
// goroutines.
package auth
