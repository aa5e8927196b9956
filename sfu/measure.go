package sfu

import "weir/sfu/rtc"

// FeedbackCounts are what RTCP has asked for.
type FeedbackCounts = rtc.FeedbackCounts

// Feedback reads the totals.
func (s *SFU) Feedback() FeedbackCounts { return s.engine.Feedback() }

// NotForwarded counts the RTP packets that came from publishers and over cascade
// links and that were not forwarded, by reason, in snake_case. Each reason
// appears, also with 0.
func (s *SFU) NotForwarded() map[string]int64 { return s.drops.Counts(true) }

// Repairs are how many packets were sent again, and how many were asked for
// beyond the bounds of repair.
func (s *SFU) Repairs() (sent, withheld int64) { return s.engine.Repairs() }
