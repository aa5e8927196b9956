// Package ledger decides what one node admits: the input is requests for leases
// and sessions, the time and the measured load; the output is leases, refusals
// and the node's [Totals].
//
// It does no I/O and has no clock and no goroutines; a [Ledger] is safe for
// concurrent use.
package ledger
