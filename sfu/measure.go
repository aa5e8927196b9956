package sfu

import "weir/sfu/rtc/feedback"

// FeedbackCounts are the RTCP requests received and sent.
type FeedbackCounts = feedback.Counts

// Feedback returns the totals since the start.
func (s *SFU) Feedback() FeedbackCounts { return s.engine.Feedback() }

// NotForwarded returns the RTP packets received from publishers and over
// cascade links that were not forwarded, by reason, in snake_case. All reasons
// are there, also with 0.
func (s *SFU) NotForwarded() map[string]int64 { return s.drops.Counts(true) }

// Repairs returns how many packets were sent again, and how many were requested
// beyond the bounds of repair.
func (s *SFU) Repairs() (sent, withheld int64) { return s.engine.Repairs() }

// Skips returns how many packets of video and audio were not sent, as this node
// could not send them in time, those of several viewers and links counted for
// each.
func (s *SFU) Skips() (video, audio int64) { return s.engine.Skips() }

// Probes returns how many probes of viewers' connections there were, and the
// bytes of padding that they sent.
func (s *SFU) Probes() (probes, bytes int64) { return s.engine.Probes() }

// Encrypted returns how many connections of viewers and links there were whose
// RTP is encrypted here, and by pion, which costs more.
func (s *SFU) Encrypted() (here, byPion int64) { return s.engine.Encrypted() }
