package sfu

import (
	"bytes"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
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

// FeedbackCounts are what publishers, viewers and links were asked for, and asked
// for, since the node began.
type FeedbackCounts struct {
	KeyframesIn, KeyframesOut int64 // requests, by PLI or FIR: received and sent
	RepairsIn, RepairsOut     int64 // packets asked for again by NACK: of this node and by it
}

// Feedback reads the totals.
func (s *SFU) Feedback() FeedbackCounts { return s.engine.feedback.read() }

// LinksLost is how many packets did not come over cascade links, of pulls that are
// over. Those of pulls under way are in [SFU.Links].
func (s *SFU) LinksLost() int64 { return s.linksLost.Load() }

// feedbackCounters count what RTCP asks for, on all PeerConnections.
type feedbackCounters struct {
	keyframesIn, keyframesOut, repairsIn, repairsOut atomic.Int64
}

func (c *feedbackCounters) read() FeedbackCounts {
	return FeedbackCounts{c.keyframesIn.Load(), c.keyframesOut.Load(), c.repairsIn.Load(), c.repairsOut.Load()}
}

// NewInterceptor implements interceptor.Factory.
func (c *feedbackCounters) NewInterceptor(string) (interceptor.Interceptor, error) {
	return &feedbackCounter{totals: c}, nil
}

// A feedbackCounter counts for one PeerConnection.
type feedbackCounter struct {
	interceptor.NoOp
	totals *feedbackCounters

	mu   sync.Mutex
	last []byte // the datagram counted last
	at   time.Time
}

// duplicateWithin is how soon after a datagram its copies come: pion gives one to
// the reader of each stream that it names.
const duplicateWithin = 20 * time.Millisecond

// fresh reports whether b has not just been counted.
func (f *feedbackCounter) fresh(b []byte, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.at) < duplicateWithin && bytes.Equal(b, f.last) {
		return false
	}
	f.last, f.at = append(f.last[:0], b...), now
	return true
}

func countFeedback(packets []rtcp.Packet, keyframes, repairs *atomic.Int64) {
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
			keyframes.Add(1)
		case *rtcp.TransportLayerNack:
			for _, pair := range p.Nacks {
				repairs.Add(int64(len(pair.PacketList())))
			}
		}
	}
}

// BindRTCPReader counts what comes.
func (f *feedbackCounter) BindRTCPReader(reader interceptor.RTCPReader) interceptor.RTCPReader {
	return interceptor.RTCPReaderFunc(func(b []byte, a interceptor.Attributes) (int, interceptor.Attributes, error) {
		n, a, err := reader.Read(b, a)
		if err != nil {
			return n, a, err
		}
		if a == nil {
			a = interceptor.Attributes{}
		}
		if packets, bad := a.GetRTCPPackets(b[:n]); bad == nil && f.fresh(b[:n], time.Now()) {
			countFeedback(packets, &f.totals.keyframesIn, &f.totals.repairsIn)
		}
		return n, a, nil
	})
}

// BindRTCPWriter counts what goes.
func (f *feedbackCounter) BindRTCPWriter(writer interceptor.RTCPWriter) interceptor.RTCPWriter {
	return interceptor.RTCPWriterFunc(func(packets []rtcp.Packet, a interceptor.Attributes) (int, error) {
		n, err := writer.Write(packets, a)
		if err == nil {
			countFeedback(packets, &f.totals.keyframesOut, &f.totals.repairsOut)
		}
		return n, err
	})
}

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
