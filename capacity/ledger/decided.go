package ledger

import "maps"

// Counts counts a ledger's decisions since it was made. A repeated request
// that gets the same lease counts once.
type Counts struct {
	Leases  uint64            // granted
	Entries uint64            // admitted without a lease
	Refused map[string]uint64 // by reason, one of LedgerReasons
}

// Reasons are the possible reasons of a ledger's refusals.
func Reasons() []string {
	return []string{"draining", "sessions", "uplink", "packets", "cpu", "delay", "streams", "share", "leases", "claimed", "malformed"}
}

// Decided returns the counts.
func (l *Ledger) Decided() Counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := l.decided
	d.Refused = maps.Clone(d.Refused)
	return d
}
