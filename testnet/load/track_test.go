//go:build linux

package load

import (
	"slices"
	"testing"
	"time"
)

// A fakeServer makes packets of frames, with numbers and times of its own.
type fakeServer struct {
	log  *log
	seq  uint16
	base uint32
}

type fakePacket struct {
	arrival
	data []byte
}

func (s *fakeServer) frame(n uint32, key bool) (packets []fakePacket) {
	payloads := video.payloads(nil, make([]byte, keyframeSize+4<<10), n, key)
	s.log.put(sentFrame{number: n, packets: len(payloads), key: key, at: int64(n) * 1e6})
	for i, p := range payloads {
		packets = append(packets, fakePacket{arrival{7, s.seq, s.base + n*video.step(), i == len(payloads)-1, int64(9e6)}, p})
		s.seq++
	}
	return packets
}

func TestTrackCountsFramesOfWhateverNumbers(t *testing.T) {
	l := &log{}
	server := &fakeServer{log: l, seq: 65530, base: 1<<32 - 4000}
	tr := &track{kind: video, log: l}
	w := &Window{}
	w.from[video], w.until[video] = 2, 5
	in := newTally(w)
	opened, keys := 0, 0
	take := func(p fakePacket) {
		if tr.packet(p.arrival, in, func() []byte { opened++; return p.data }) {
			keys++
		}
	}
	all := 0
	for n := uint32(1); n <= 5; n++ {
		packets := server.frame(n, n == 1 || n == 3)
		if n >= 2 && n < 5 {
			all += len(packets)
		}
		switch n {
		case 3: // in another order, and some twice
			slices.Reverse(packets)
			packets = append(packets, packets[:4]...)
		case 4: // one is lost
			packets = slices.Delete(packets, 2, 3)
		}
		for _, p := range packets {
			take(p)
		}
	}
	if got := in.packets[video]; got != uint64(all-1) {
		t.Errorf("%d packets counted, want %d", got, all-1)
	}
	if in.frames[video] != 2 {
		t.Errorf("%d frames complete, want 2: the second and the third", in.frames[video])
	}
	if keys != 2 || tr.repeated != 4 || tr.shifts != 0 {
		t.Errorf("%d keyframes, %d repeated, %d shifts; want 2, 4 and 0", keys, tr.repeated, tr.shifts)
	}
	if opened < 1 || opened > 1+int(tr.packets)/sampled {
		t.Errorf("%d of %d packets decrypted", opened, tr.packets)
	}
	// Of the third frame one is asked for again at first, but it came.
	if got := tr.due(nil, int64(time.Second)); len(got) != 1 {
		t.Errorf("asked for %v, want the one that is lost", got)
	}
}

// A server that puts a frame into other packets loses nothing by that.
func TestTrackTakesFramesInOtherPackets(t *testing.T) {
	l := &log{}
	server := &fakeServer{log: l}
	tr := &track{kind: video, log: l}
	w := &Window{}
	w.from[video], w.until[video] = 1, 3
	in := newTally(w)
	var all []fakePacket
	for n := uint32(1); n <= 2; n++ {
		packets := server.frame(n, n == 1)
		last := len(packets) - 1
		packets[last-1].marker = true // two packets have become one
		server.seq--
		all = append(all, packets[:last]...)
	}
	late := all[len(all)-12] // one of the first frame, after the second
	all = append(slices.Delete(all, len(all)-12, len(all)-11), late)
	for _, p := range all {
		tr.packet(p.arrival, in, func() []byte { return p.data })
	}
	if in.frames[video] != 2 || in.repacked != -2 || in.packets[video] != uint64(len(all)) {
		t.Errorf("%d frames complete, %d packets more than sent, %d counted; want 2, -2, %d", in.frames[video], in.repacked, in.packets[video], len(all))
	}
}

func TestTrackAsksThreeTimes(t *testing.T) {
	tr := &track{kind: video, log: &log{}}
	for _, seq := range []uint16{10, 14, 12} {
		tr.packet(arrival{ssrc: 1, seq: seq}, nil, func() []byte { return nil })
	}
	var asked []uint16
	for at := time.Duration(0); at < time.Second; at += time.Millisecond {
		asked = tr.due(asked, at.Nanoseconds())
	}
	if want := []uint16{11, 13, 11, 13, 11, 13}; !slices.Equal(asked, want) {
		t.Errorf("asked for %v, want %v", asked, want)
	}
}

// Whatever a payload holds must say which frame it belongs to.
func TestEveryPayloadNamesItsFrame(t *testing.T) {
	for k := range kinds {
		for _, key := range []bool{false, true} {
			payloads := k.payloads(nil, make([]byte, keyframeSize+4<<10), 77, key && k == video)
			for i, p := range payloads {
				if n, ok := k.number(p); !ok || n != 77 {
					t.Errorf("kind %d, payload %d of %d: number %d, %v", k, i, len(payloads), n, ok)
				}
				if len(p) > payloadSize {
					t.Errorf("payload %d has %d bytes", i, len(p))
				}
			}
		}
	}
}

// The stream has the rate that reports claim.
func TestStreamHasItsRate(t *testing.T) {
	bytes := 0
	for n := range uint32(keyEvery) {
		for _, p := range video.payloads(nil, make([]byte, keyframeSize+4<<10), n, n == 0) {
			bytes += len(p)
		}
	}
	rate := float64(bytes) * 8 * FrameRate / keyEvery
	if rate < 0.97*BitRate || rate > 1.03*BitRate {
		t.Errorf("%.0f bit/s, want about %d", rate, BitRate)
	}
}
