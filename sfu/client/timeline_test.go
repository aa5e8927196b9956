package client

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
	"pgregory.net/rapid"
)

// clip makes a Source with frames of the given lengths and keyframes at keys;
// the data of frame 7 of the video is "v7".
func clip(t testing.TB, video, audio []time.Duration, keys ...int) *Source {
	t.Helper()
	var tracks []clipTrack
	add := func(name string, codec webrtc.RTPCodecCapability, lengths []time.Duration, key func(int) bool) {
		tr := clipTrack{codec: codec}
		at := time.Duration(0)
		for i, d := range lengths {
			tr.frames = append(tr.frames, frame{at: at, last: d, data: fmt.Appendf(nil, "%s%d", name, i), key: key(i)})
			at += d
		}
		if len(lengths) > 0 {
			tracks = append(tracks, tr)
		}
	}
	add("v", videoCodec(webrtc.MimeTypeVP8, ""), video, func(i int) bool { return slices.Contains(keys, i) })
	add("a", opusCodec(), audio, func(int) bool { return true })
	s, err := newSource(tracks...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func each(n int, d time.Duration) []time.Duration { return slices.Repeat([]time.Duration{d}, n) }

// play sends n frames and returns them with their times, as "v0@0 a0@0 v1@40"
// in ms.
func play(l *timeline, n int) string {
	s := ""
	for range n {
		track, f, due, ok := l.peek()
		if !ok {
			return s + " end"
		}
		l.advance(track)
		if s != "" {
			s += " "
		}
		s += fmt.Sprintf("%s@%d", f.data, due.Milliseconds())
	}
	return s
}

func TestTimeline(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name         string
		video, audio []time.Duration
		keys         []int
		once         bool
		before       int           // frames sent before the jump
		jump         time.Duration // 0: none
		n            int           // frames sent after it
		want         string
	}{
		{
			name: "video and audio interleave by time, video first", video: each(3, 40*ms), audio: each(6, 20*ms), keys: []int{0},
			n: 7, want: "v0@0 a0@0 a1@20 v1@40 a2@40 a3@60 v2@80",
		},
		{
			name: "a loop goes on where the clip ends", video: each(2, 40*ms), audio: each(4, 20*ms), keys: []int{0},
			n: 9, want: "v0@0 a0@0 a1@20 v1@40 a2@40 a3@60 v0@80 a0@80 a1@100",
		},
		{
			name: "audio longer than the video is cut at the loop", video: each(2, 40*ms), audio: each(6, 20*ms), keys: []int{0},
			n: 8, want: "v0@0 a0@0 a1@20 v1@40 a2@40 a3@60 v0@80 a0@80",
		},
		{
			name: "audio shorter than the video waits for the loop", video: each(2, 40*ms), audio: each(2, 20*ms), keys: []int{0},
			n: 7, want: "v0@0 a0@0 a1@20 v1@40 v0@80 a0@80 a1@100",
		},
		{
			name: "audio does not stutter where the clip's length is no multiple of a packet", video: each(3, 30*ms), audio: each(5, 20*ms), keys: []int{0},
			// The loop begins at 90; the packet at 100 is the one nearest to 10 ms into the clip.
			n: 10, want: "v0@0 a0@0 a1@20 v1@30 a2@40 v2@60 a3@60 a4@80 v0@90 a0@100",
		},
		{
			name: "audio alone loops", audio: each(2, 20*ms),
			n: 4, want: "a0@0 a1@20 a0@40 a1@60",
		},
		{
			name: "once ends", video: each(2, 40*ms), audio: each(4, 20*ms), keys: []int{0}, once: true,
			n: 9, want: "v0@0 a0@0 a1@20 v1@40 a2@40 a3@60 end",
		},
		{
			name: "a jump sends the next keyframe now and audio goes on in step", video: each(9, 40*ms), audio: each(18, 20*ms), keys: []int{0, 5},
			before: 4, jump: 47 * ms, // v0 a0 a1 v1, and a2 is due at 40
			n: 5, want: "a10@40 v5@47 a11@60 a12@80 v6@87",
		},
		{
			name: "a jump past the last keyframe goes to the clip's start", video: each(4, 40*ms), audio: each(8, 20*ms), keys: []int{0, 2},
			before: 8, jump: 90 * ms, // v2 was sent at 80, a4 is due
			n: 4, want: "v0@90 a0@100 a1@120 v1@130",
		},
		{
			name: "a jump before anything was sent begins with it", video: each(4, 40*ms), audio: each(8, 20*ms), keys: []int{0, 2},
			jump: 5 * ms,
			n:    3, want: "v0@5 a0@5 a1@25",
		},
		{
			name: "once there is no keyframe left nothing changes", video: each(3, 40*ms), keys: []int{0}, once: true,
			before: 1, jump: 10 * ms,
			n: 3, want: "v1@40 v2@80 end",
		},
		{
			name: "audio cannot jump", audio: each(3, 20*ms),
			before: 1, jump: 10 * ms,
			n: 2, want: "a1@20 a2@40",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := clip(t, c.video, c.audio, c.keys...)
			src.Once = c.once
			l := newTimeline(src)
			play(l, c.before)
			if c.jump > 0 {
				if ok := l.jump(c.jump); ok != (len(c.video) > 0 && !c.once) {
					t.Errorf("jump = %v", ok)
				}
			}
			if got := play(l, c.n); got != c.want {
				t.Errorf("sent %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestTimelineDelay(t *testing.T) {
	l := newTimeline(clip(t, each(2, 40*time.Millisecond), each(4, 20*time.Millisecond), 0))
	play(l, 2)
	l.delay(time.Second)
	if got, want := play(l, 5), "a1@1020 v1@1040 a2@1040 a3@1060 v0@1080"; got != want {
		t.Errorf("sent %s\nwant %s", got, want)
	}
}

// For any clip and any jumps, time must not go back, audio must have neither
// gap nor overlap, every jump must yield a keyframe at once, and audio must
// stay within a packet of the video.
func TestTimelineHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		length := time.Duration(rapid.IntRange(8, 60).Draw(rt, "frame_ms")) * time.Millisecond
		const packet = 20 * time.Millisecond
		// No shorter than a packet, which no clip is.
		frames := rapid.IntRange(int((packet+length-1)/length), 30).Draw(rt, "frames")
		every := rapid.IntRange(1, 10).Draw(rt, "every")
		var keys []int
		for i := 0; i < frames; i += every {
			keys = append(keys, i)
		}
		// Audio at least as long as the video, as a camera has.
		packets := int(time.Duration(frames)*length/packet) + 1
		src := clip(t, each(frames, length), each(packets, packet), keys...)
		l := newTimeline(src)

		var now, lastVideo, audioEnd time.Duration
		lastVideo = -1
		started := false
		for range rapid.IntRange(1, 200).Draw(rt, "steps") {
			jumped := time.Duration(-1)
			if rapid.IntRange(0, 9).Draw(rt, "jump?") == 0 {
				_, _, next, _ := l.peek() // due frames are sent before a jump
				wait := time.Duration(rapid.IntRange(0, 100).Draw(rt, "wait_percent")) * (next - now) / 100
				jumped = max(now+wait, lastVideo+tick)
				if !l.jump(jumped) {
					rt.Fatalf("no keyframe to jump to")
				}
			}
			track, f, due, ok := l.peek()
			if !ok {
				rt.Fatal("a loop ended")
			}
			l.advance(track)
			if src.tracks[track].video() {
				if due <= lastVideo {
					rt.Fatalf("video due at %v after %v", due, lastVideo)
				}
				if jumped >= 0 && (due != jumped || !f.key) {
					rt.Fatalf("jump at %v: frame due at %v, key %v", jumped, due, f.key)
				}
				lastVideo = due
			} else {
				if started && due != audioEnd {
					rt.Fatalf("audio due at %v, the packet before ended at %v", due, audioEnd)
				}
				started, audioEnd = true, due+f.last
				// Distance of its place in the clip from the video's, over the
				// loop.
				off := (due - f.at - l.cursors[0].offset) % src.length
				off = min(off.Abs(), src.length-off.Abs())
				if off > packet/2+time.Microsecond {
					rt.Fatalf("audio is %v off the video: %+v", off, l.cursors)
				}
			}
			now = max(now, due)
		}
	})
}

func TestRTPTicks(t *testing.T) {
	for _, c := range []struct {
		d    time.Duration
		rate uint32
		want uint32
	}{
		{0, 90000, 0},
		{time.Second / 30, 90000, 3000},
		{7 * time.Second / 30, 90000, 21000},
		{20 * time.Millisecond, 48000, 960},
		{time.Duration(1<<32) * time.Second / 90000, 90000, 0}, // wraps
		{100 * 24 * time.Hour, 90000, 90000 * 86400 * 100 % (1 << 32)},
	} {
		if got := rtpTicks(c.d, c.rate); got != c.want {
			t.Errorf("rtpTicks(%v, %d) = %d, want %d", c.d, c.rate, got, c.want)
		}
	}
}
