// Package ledger decides what one node admits: requests for leases and sessions
// come in with the time and what the meter measures, and out come leases,
// refusals and the node's [Totals].
//
// It does no I/O and has no clock and no goroutines; a [Ledger] is safe for
// concurrent use.
package ledger
