package place

import "time"

const (
	// An answer is overdue after half as long again as the usual round trip
	// takes, patienceMost at most; but a holder has hedgeLeast, for a query costs
	// little, and a machine may be busy.
	patienceMost = 200 * time.Millisecond
	hedgeLeast   = 40 * time.Millisecond
	// A candidate asked for room has reserveLeast. It gets rivals later than a
	// holder does, and no more than two, as each holds room for a moment that
	// others are refused.
	reserveLeast = 60 * time.Millisecond
	// ReserveTime bounds one reservation, a dial included, on a target that is not
	// far away.
	ReserveTime = time.Second

	// A second answer is waited for between graceLeast and GraceMost longer than
	// the first.
	graceLeast = 5 * time.Millisecond
	// GraceMost bounds how much longer than for the first answer the next is
	// waited for.
	GraceMost = 30 * time.Millisecond
	// graceEmpty is how much longer a third answer is waited for when two holders
	// know of nothing.
	graceEmpty = 150 * time.Millisecond
)

// Patience is how long to wait for the answer of a peer with that round trip,
// 0 if it is unknown, before asking others too. The first request to a peer
// that is not connected comes after a handshake.
func Patience(rtt time.Duration, connected bool) time.Duration {
	if !connected {
		return min(4*rtt, patienceMost)
	}
	return min(rtt+rtt/2, patienceMost)
}

// LeasePatience is how long to wait for the lease of a candidate before asking
// others too: by its [Patience], and by the round trip predicted from what was
// offered, 0 if there is no prediction.
func LeasePatience(patience, predicted time.Duration) time.Duration {
	return max(reserveLeast, patience, min(2*predicted, 2*patienceMost))
}

// ReserveDeadline is how long a reservation may take, a dial included, on a
// target at that predicted round trip, 0 if there is no prediction.
func ReserveDeadline(predicted time.Duration) time.Duration { return max(ReserveTime, 6*predicted) }

// AnswerGrace is how much longer a second answer is waited for when the first
// took so long: as long again, but 5 ms at least and GraceMost at most. A holder
// that hangs costs no more.
func AnswerGrace(first time.Duration) time.Duration {
	return min(max(first, graceLeast), GraceMost)
}

// LeaseGrace is how much longer the other leases are waited for when the first
// took so long: as long again, or until they should be there, given the round
// trip to the furthest asked; within the bounds of [AnswerGrace].
func LeaseGrace(first, slowest time.Duration) time.Duration {
	return AnswerGrace(max(first, slowest+slowest/4-first))
}

// earliest is the earlier of two deadlines, of which zero is none.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// passed reports whether a deadline, if there is one, has passed.
func passed(now, deadline time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }
