package pb

import (
	"errors"
	"time"

	"weir/capacity"
)

const (
	maxReason = 64  // bytes of a reason in one word
	maxDetail = 256 // bytes of a detail for people
)

// RefusalOf encodes err, which need not be a *capacity.Refusal.
func RefusalOf(err error) *Refusal {
	var refusal *capacity.Refusal
	if !errors.As(err, &refusal) {
		refusal = &capacity.Refusal{Reason: "error", Detail: err.Error()}
	}
	return &Refusal{
		Reason:  capacity.Printable(refusal.Reason, maxReason),
		Detail:  capacity.Printable(refusal.Detail, maxDetail),
		RetryMs: uint32(refusal.RetryAfter.Milliseconds()),
	}
}

// Err decodes x.
func (x *Refusal) Err() *capacity.Refusal {
	return &capacity.Refusal{
		Reason:     capacity.Printable(x.Reason, maxReason),
		Detail:     capacity.Printable(x.Detail, maxDetail),
		RetryAfter: time.Duration(x.RetryMs) * time.Millisecond,
	}
}
