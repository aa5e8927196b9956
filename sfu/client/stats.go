package client

import (
	"encoding/json"
	"time"
)

// Stats are the statistics of the stream that a [Publisher] has sent or a
// [Viewer] has received. Times are since the first POST that led to the
// accepted offer, before its redirects; 0 means not yet. In JSON they are
// milliseconds, with names that end in _ms.
type Stats struct {
	Elapsed       time.Duration
	Answered      time.Duration // SDP answer received
	ICE           time.Duration // ICE connected
	Connected     time.Duration // DTLS done: media can flow
	FirstPacket   time.Duration // first RTP packet sent or received
	FirstKeyframe time.Duration // first packet of the first keyframe of video
	FirstFrame    time.Duration // that keyframe complete: the first that can be decoded; of audio, if that is the only track

	Packets   uint64  // RTP packets: received once each, repairs included
	Bytes     uint64  // of RTP payload
	Lost      uint64  // viewer: neither received nor repaired; publisher: as reported by the server
	Frames    uint64  // of video
	Keyframes uint64  // of video
	Bitrate   float64 // of RTP payload, bit/s: since the first packet, or see Since

	Latency *Latency       // viewer: by the publisher's abs-capture-time, nil without it
	Skew    *time.Duration // viewer: how much later video comes than the audio captured with it, from sender reports; nil without them
	Acked   bool           // publisher: the server has reported on packets received

	LastPacket time.Duration // viewer: the newest RTP packet received
	Gaps       uint64        // times that another connection replaced a lost one: see Plus
	Gap        time.Duration // total duration of these: from the last packet, for a publisher from the detection of the loss

	URL    string   // URL where the offer was accepted
	Hops   []string // every URL tried, from the given one to URL
	State  string   // of the connection: connecting, connected, disconnected, failed, closed
	Tracks []TrackStats
}

// TrackStats is one track's part of [Stats].
type TrackStats struct {
	Kind      string  `json:"kind"`  // audio or video
	Codec     string  `json:"codec"` // such as video/VP8
	SSRC      uint32  `json:"ssrc"`
	Packets   uint64  `json:"packets"`
	Bytes     uint64  `json:"bytes"`
	Lost      uint64  `json:"lost"`
	Frames    uint64  `json:"frames"`    // of audio: packets
	Keyframes uint64  `json:"keyframes"` // of video
	Bitrate   float64 `json:"bitrate"`

	FirstPacket   time.Duration `json:"-"`
	FirstKeyframe time.Duration `json:"-"`
	FirstFrame    time.Duration `json:"-"`
	LastPacket    time.Duration `json:"-"` // viewer
	LongestGap    time.Duration `json:"-"` // viewer: between the arrivals of two packets

	Resets     uint64   `json:"resets"`     // viewer: restarts of the sequence numbers
	Backwards  uint64   `json:"backwards"`  // viewer: timestamps of packets in order that went back
	Duplicates uint64   `json:"duplicates"` // viewer: packets received again, or too late to tell
	NACKs      uint64   `json:"nacks"`      // packets requested by NACK: received by a publisher, sent by a viewer
	PLIs       uint64   `json:"plis"`       // keyframes requested, likewise
	RTT        Millis   `json:"rtt_ms"`     // publisher: by receiver reports, 0: unknown
	Latency    *Latency `json:"latency_ms"` // viewer
}

// Millis is a duration that JSON shows as milliseconds.
type Millis time.Duration

// MarshalJSON writes d as a number of milliseconds with three decimals at most.
func (d Millis) MarshalJSON() ([]byte, error) {
	return json.Marshal(float64(time.Duration(d).Microseconds()) / 1000)
}

// Latency is the distribution of one-way latencies: the arrival time by this
// machine's clock minus the capture time by the publisher's clock.
type Latency struct {
	Count uint64 `json:"count"`
	Min   Millis `json:"min"`
	P50   Millis `json:"p50"`
	P90   Millis `json:"p90"`
	P99   Millis `json:"p99"`
	Max   Millis `json:"max"`
}

func (h *histogram) latency() *Latency {
	if h.count == 0 {
		return nil
	}
	return &Latency{
		Count: h.count,
		Min:   Millis(h.min),
		P50:   Millis(h.quantile(0.50)),
		P90:   Millis(h.quantile(0.90)),
		P99:   Millis(h.quantile(0.99)),
		Max:   Millis(h.max),
	}
}

// MarshalJSON writes s with snake_case keys and times in milliseconds.
func (s Stats) MarshalJSON() ([]byte, error) {
	tracks := s.Tracks
	if tracks == nil {
		tracks = []TrackStats{}
	}
	return json.Marshal(struct {
		Elapsed       Millis       `json:"elapsed_ms"`
		State         string       `json:"state"`
		URL           string       `json:"url"`
		Hops          []string     `json:"hops"`
		Answered      Millis       `json:"answered_ms"`
		ICE           Millis       `json:"ice_ms"`
		Connected     Millis       `json:"connected_ms"`
		FirstPacket   Millis       `json:"first_packet_ms"`
		FirstKeyframe Millis       `json:"first_keyframe_ms"`
		FirstFrame    Millis       `json:"first_frame_ms"`
		Packets       uint64       `json:"packets"`
		Bytes         uint64       `json:"bytes"`
		Lost          uint64       `json:"lost"`
		Frames        uint64       `json:"frames"`
		Keyframes     uint64       `json:"keyframes"`
		Bitrate       float64      `json:"bitrate"`
		Acked         bool         `json:"acked"`
		Gaps          uint64       `json:"gaps"`
		Gap           Millis       `json:"gap_ms"`
		Latency       *Latency     `json:"latency_ms"`
		Skew          *Millis      `json:"skew_ms"`
		Tracks        []TrackStats `json:"tracks"`
	}{
		Millis(s.Elapsed), s.State, s.URL, s.Hops,
		Millis(s.Answered), Millis(s.ICE), Millis(s.Connected),
		Millis(s.FirstPacket), Millis(s.FirstKeyframe), Millis(s.FirstFrame),
		s.Packets, s.Bytes, s.Lost, s.Frames, s.Keyframes, s.Bitrate,
		s.Acked, s.Gaps, Millis(s.Gap), s.Latency, (*Millis)(s.Skew), tracks,
	})
}

// MarshalJSON writes t with snake_case keys and times in milliseconds.
func (t TrackStats) MarshalJSON() ([]byte, error) {
	type plain TrackStats
	return json.Marshal(struct {
		plain
		FirstPacket   Millis `json:"first_packet_ms"`
		FirstKeyframe Millis `json:"first_keyframe_ms"`
		FirstFrame    Millis `json:"first_frame_ms"`
		LongestGap    Millis `json:"longest_gap_ms"`
	}{plain(t), Millis(t.FirstPacket), Millis(t.FirstKeyframe), Millis(t.FirstFrame), Millis(t.LongestGap)})
}

// Since returns s with every Bitrate computed over the time since before, an
// earlier Stats of the same Publisher or Viewer.
func (s Stats) Since(before Stats) Stats {
	rate := func(now, then uint64) float64 {
		if s.Elapsed <= before.Elapsed {
			return 0
		}
		return float64(8*(now-then)) / (s.Elapsed - before.Elapsed).Seconds()
	}
	s.Bitrate = rate(s.Bytes, min(before.Bytes, s.Bytes))
	tracks := append([]TrackStats(nil), s.Tracks...)
	for i := range tracks {
		then := uint64(0)
		if i < len(before.Tracks) { // possibly over another connection: see Plus
			then = before.Tracks[i].Bytes
		}
		for _, t := range before.Tracks {
			if t.SSRC == tracks[i].SSRC {
				then = t.Bytes
			}
		}
		then = min(then, tracks[i].Bytes)
		tracks[i].Bitrate = rate(tracks[i].Bytes, then)
	}
	s.Tracks = tracks
	return s
}

// Plus returns the statistics of a stream that next, another Publisher or
// Viewer, continues gap after the end of s: counts are sums, the first times
// are those of s where it has any, and state, URL, latency and skew are those
// of next. Times are since the POST of s.
func (s Stats) Plus(next Stats, gap time.Duration) Stats {
	sum, begun := next, s.Elapsed+gap // when next was posted
	sum.Elapsed = begun + next.Elapsed
	sum.Answered, sum.ICE, sum.Connected = s.Answered, s.ICE, s.Connected
	sum.FirstPacket = firstOf(s.FirstPacket, next.FirstPacket, begun)
	sum.FirstKeyframe = firstOf(s.FirstKeyframe, next.FirstKeyframe, begun)
	sum.FirstFrame = firstOf(s.FirstFrame, next.FirstFrame, begun)
	if sum.LastPacket = s.LastPacket; next.LastPacket > 0 {
		sum.LastPacket = begun + next.LastPacket
	}
	sum.Packets += s.Packets
	sum.Bytes += s.Bytes
	sum.Lost += s.Lost
	sum.Frames += s.Frames
	sum.Keyframes += s.Keyframes
	sum.Acked = sum.Acked || s.Acked
	sum.Gaps, sum.Gap = s.Gaps+1, s.Gap+gap
	if sum.Latency == nil {
		sum.Latency = s.Latency
	}
	if sum.Bitrate = 0; sum.FirstPacket > 0 && sum.Elapsed > sum.FirstPacket {
		sum.Bitrate = float64(8*sum.Bytes) / (sum.Elapsed - sum.FirstPacket).Seconds()
	}
	sum.Tracks = nil
	count := map[string]int{} // of next's tracks, by kind
	for _, t := range next.Tracks {
		before := nthOf(s.Tracks, t.Kind, count[t.Kind])
		if before == nil {
			before = &TrackStats{}
		}
		t = before.plus(t, begun)
		count[t.Kind]++
		sum.Tracks = append(sum.Tracks, t)
	}
	for kind, n := range map[string]int{"audio": count["audio"], "video": count["video"]} {
		for t := nthOf(s.Tracks, kind, n); t != nil; t = nthOf(s.Tracks, kind, n) {
			sum.Tracks = append(sum.Tracks, *t) // next does not have this track yet
			n++
		}
	}
	return sum
}

// firstOf returns first, or else next, which is relative to begun. 0 means no
// time.
func firstOf(first, next, begun time.Duration) time.Duration {
	if first == 0 && next > 0 {
		return begun + next
	}
	return first
}

// nthOf returns the nth track of a kind, from 0 on, or nil.
func nthOf(tracks []TrackStats, kind string, n int) *TrackStats {
	for i := range tracks {
		if tracks[i].Kind == kind {
			if n == 0 {
				return &tracks[i]
			}
			n--
		}
	}
	return nil
}

// plus is [Stats.Plus] for a track; begun is the time of the POST of next.
func (t TrackStats) plus(next TrackStats, begun time.Duration) TrackStats {
	sum := next
	sum.FirstPacket = firstOf(t.FirstPacket, next.FirstPacket, begun)
	sum.FirstKeyframe = firstOf(t.FirstKeyframe, next.FirstKeyframe, begun)
	sum.FirstFrame = firstOf(t.FirstFrame, next.FirstFrame, begun)
	sum.Packets += t.Packets
	sum.Bytes += t.Bytes
	sum.Lost += t.Lost
	sum.Frames += t.Frames
	sum.Keyframes += t.Keyframes
	sum.Resets += t.Resets
	sum.Backwards += t.Backwards
	sum.Duplicates += t.Duplicates
	sum.NACKs += t.NACKs
	sum.PLIs += t.PLIs
	if sum.LastPacket = t.LastPacket; next.LastPacket > 0 {
		sum.LastPacket = begun + next.LastPacket
	}
	sum.LongestGap = max(t.LongestGap, next.LongestGap)
	if next.FirstPacket > 0 && t.LastPacket > 0 {
		sum.LongestGap = max(sum.LongestGap, begun+next.FirstPacket-t.LastPacket)
	}
	if sum.Latency == nil {
		sum.Latency = t.Latency
	}
	return sum
}

// total sets the fields that are sums over tracks.
func (s *Stats) total() {
	for i := range s.Tracks {
		t := &s.Tracks[i]
		if span := s.Elapsed - t.FirstPacket; t.FirstPacket > 0 && span > 0 {
			t.Bitrate = float64(8*t.Bytes) / span.Seconds()
		}
		s.Packets += t.Packets
		s.Bytes += t.Bytes
		s.Lost += t.Lost
		s.Bitrate += t.Bitrate
		s.FirstPacket = earlier(s.FirstPacket, t.FirstPacket)
		s.LastPacket = max(s.LastPacket, t.LastPacket)
		if t.Kind == "video" {
			s.Frames += t.Frames
			s.Keyframes += t.Keyframes
		}
		if t.Kind == "video" || len(s.Tracks) == 1 { // or audio only
			s.FirstKeyframe = earlier(s.FirstKeyframe, t.FirstKeyframe)
			s.FirstFrame = earlier(s.FirstFrame, t.FirstFrame)
		}
	}
}

// earlier returns the smaller of a and b; 0 means no time.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
