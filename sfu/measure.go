package sfu

import (
	"time"

	"weir/sfu/rtc"
)

// A Measure is a time that an SFU takes of its own work; see Config.Measured.
type Measure string

// All there are.
const (
	// FirstVideo and FirstAudio are from a viewer's POST to the first packet of
	// that kind sent to it; of video that is a keyframe's, unless none came.
	FirstVideo Measure = "first_video"
	FirstAudio Measure = "first_audio"
	// RoundTrip is that of a cascade link, taken with every heartbeat.
	RoundTrip Measure = "round_trip"
)

// measured passes a time on.
func (s *SFU) measured(m Measure, d time.Duration) {
	if s.cfg.Measured != nil {
		s.cfg.Measured(m, d)
	}
}

// FeedbackCounts are what RTCP has asked for.
type FeedbackCounts = rtc.FeedbackCounts

// Feedback reads the totals.
func (s *SFU) Feedback() FeedbackCounts { return s.engine.Feedback() }

// LinksLost is how many packets did not come over cascade links, of pulls that are
// over. Those of pulls under way are in [SFU.Links].
func (s *SFU) LinksLost() int64 { return s.linksLost.Load() }

// endWords are why sessions end, as one word for programs, by how the sentence
// for people begins.
var endWords = []struct{ begins, word string }{
	{"deleted by the client", "deleted"},
	{"the client fell silent", "silent"},
	{"the client closed", "closed"},
	{"the stream has ended", "stream_ended"},
	{"this node is closing", "node_ended"},
	{"no media connection", "never_connected"},
	{"no connectivity check", "no_consent"},
	{"its name was taken", "name_taken"},
	{"ended by the operator", "operator"},
	{"its right has ended: its token", "token_expired"},
	{"its right has ended: the key", "token_key_removed"},
	{"it sent nothing", "replaced"}, // by a new publisher of its name
}

// endWord is the word for why a session ends.
func endWord(why string) string {
	for _, w := range endWords {
		if len(why) >= len(w.begins) && why[:len(w.begins)] == w.begins {
			return w.word
		}
	}
	return "other"
}

// EndWords lists all of them.
func EndWords() []string {
	words := []string{"other"}
	for _, w := range endWords {
		words = append(words, w.word)
	}
	return words
}
