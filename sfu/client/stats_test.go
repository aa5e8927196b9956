package client

import (
	"testing"
	"time"
)

// A stream that continues over another connection counts as one.
func TestStatsPlus(t *testing.T) {
	const s = time.Second
	first := Stats{
		Elapsed: 10 * s, Connected: s, FirstPacket: 2 * s, FirstFrame: 2 * s, LastPacket: 7 * s, Packets: 100, Bytes: 1000, Lost: 1, Frames: 50, URL: "a",
		Tracks: []TrackStats{
			{Kind: "video", SSRC: 1, Packets: 60, Bytes: 900, FirstPacket: 2 * s, LastPacket: 7 * s, LongestGap: s / 2},
			{Kind: "audio", SSRC: 2, Packets: 40, Bytes: 100, FirstPacket: 2 * s, LastPacket: 7 * s},
		},
	}
	next := Stats{
		Elapsed: 5 * s, Connected: s / 2, FirstPacket: s, FirstFrame: s, LastPacket: 5 * s, Packets: 10, Bytes: 180, Frames: 5, URL: "b", State: "connected",
		Tracks: []TrackStats{{Kind: "audio", SSRC: 3, Packets: 10, Bytes: 180, FirstPacket: s, LastPacket: 5 * s}},
	}
	sum := first.Plus(next, 2*s)
	if sum.Elapsed != 17*s || sum.Connected != s || sum.FirstFrame != 2*s || sum.LastPacket != 17*s || sum.Packets != 110 || sum.Bytes != 1180 ||
		sum.Lost != 1 || sum.Frames != 55 || sum.URL != "b" || sum.State != "connected" || sum.Gaps != 1 || sum.Gap != 2*s || sum.Bitrate != 8*1180/15.0 {
		t.Errorf("sum is %+v", sum)
	}
	if len(sum.Tracks) != 2 {
		t.Fatalf("tracks are %+v", sum.Tracks)
	}
	audio, video := sum.Tracks[0], sum.Tracks[1]
	// The POST of next was at 12 s: 13 s after 7 s.
	if audio.Kind != "audio" || audio.Packets != 50 || audio.LongestGap != 6*s || audio.SSRC != 3 || video.Packets != 60 || video.LongestGap != s/2 {
		t.Errorf("tracks are %+v", sum.Tracks)
	}
	// The rate since before the loss is that of the packets received since.
	if rate := sum.Since(first).Bitrate; rate != 8*180/7.0 {
		t.Errorf("rate since the gap is %v", rate)
	}

	// A stream without media before has its first times from the second
	// connection.
	if sum := (Stats{Elapsed: 4 * s}).Plus(next, s); sum.FirstFrame != 6*s || sum.Tracks[0].FirstPacket != 6*s {
		t.Errorf("sum is %+v", sum)
	}
}
