package place

import "time"

const (
	// An answer is overdue after one and a half times the usual round trip,
	// patienceMost at most; but a holder has at least hedgeLeast, because a
	// query costs little and a machine may be busy.
	patienceMost = 200 * time.Millisecond
	hedgeLeast   = 40 * time.Millisecond
	// A candidate asked for room has at least reserveLeast. It gets rivals
	// later than a holder does, and no more than two, because each holds room
	// for a moment that is refused to others.
	reserveLeast = 60 * time.Millisecond
	// ReserveTime bounds one reservation, a dial included, on a target that is not
	// far away.
	ReserveTime = time.Second

	// A second answer is waited for between graceLeast and GraceMost longer than
	// the first.
	graceLeast = 5 * time.Millisecond
	// GraceMost bounds how much longer than for the first answer to wait for
	// the next.
	GraceMost = 30 * time.Millisecond
	// graceEmpty is how much longer to wait for a third answer when two holders
	// know of nothing.
	graceEmpty = 150 * time.Millisecond
)

// Patience is how long to wait for the answer of a peer with that round trip, 0
// if unknown, before asking others too. The first request to an unconnected
// peer takes a handshake more.
func Patience(rtt time.Duration, connected bool) time.Duration {
	if !connected {
		return min(4*rtt, patienceMost)
	}
	return min(rtt+rtt/2, patienceMost)
}

// LeasePatience is how long to wait for the lease of a candidate before asking
// others too: by its [Patience], and by the round trip predicted from its
// offer, 0 if there is no prediction.
func LeasePatience(patience, predicted time.Duration) time.Duration {
	return max(reserveLeast, patience, min(2*predicted, 2*patienceMost))
}

// ReserveDeadline is how long a reservation may take, a dial included, on a
// target at that predicted round trip, 0 if there is no prediction.
func ReserveDeadline(predicted time.Duration) time.Duration { return max(ReserveTime, 6*predicted) }

// AnswerGrace is how much longer to wait for a second answer when the first
// took so long: as long again, but 5 ms at least and GraceMost at most. A
// hanging holder costs no more.
func AnswerGrace(first time.Duration) time.Duration {
	return min(max(first, graceLeast), GraceMost)
}

// LeaseGrace is how much longer to wait for the other leases when the first
// took so long: as long again, or until they should arrive, given the round
// trip to the furthest candidate; within the bounds of [AnswerGrace].
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
