package sfu

import "weir/sfu/rtc"

// FeedbackCounts are what RTCP has asked for.
type FeedbackCounts = rtc.FeedbackCounts

// Feedback reads the totals.
func (s *SFU) Feedback() FeedbackCounts { return s.engine.Feedback() }

// LinksLost is how many packets did not come over cascade links, of pulls that are
// over. Those of pulls under way are in [SFU.Links].
func (s *SFU) LinksLost() int64 { return s.linksLost.Load() }
