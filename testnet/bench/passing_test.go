package bench

import (
	"slices"
	"testing"
	"time"

	"github.com/pion/rtp"

	"weir/sfu/client"
)

// packet is one captured at the given time, on a Transport whose sequence
// numbers begin at first.
func packet(at time.Time, first uint16) *rtp.Packet {
	p := &rtp.Packet{Header: rtp.Header{SequenceNumber: first, SSRC: uint32(first)}}
	b, err := rtp.NewAbsCaptureTimeExtension(at).Marshal()
	if err == nil {
		err = p.SetExtension(1, []byte("0")) // the section's mid
	}
	if err == nil {
		err = p.SetExtension(2, b)
	}
	if err != nil {
		panic(err)
	}
	return p
}

func TestPassing(t *testing.T) {
	video, audio := client.TrackInfo{Kind: "video"}, client.TrackInfo{Kind: "audio"}
	now := time.Unix(1_000_000, 0)
	after := func(ms int) time.Time { return now.Add(time.Duration(ms) * time.Millisecond) }

	p := newPassing()
	for i := range 5 {
		p.atNear(video, packet(after(10*i), 100), after(10*i+1))
	}
	p.atNear(audio, packet(after(20), 100), after(21))
	p.atNear(video, &rtp.Packet{}, after(22)) // without a capture time

	p.atFar(video, packet(after(10), 900), after(12))
	p.atFar(video, packet(after(30), 900), after(34)) // the packet captured at 20 is lost
	p.atFar(video, packet(after(30), 900), after(99)) // a repetition does not count
	p.atFar(audio, packet(after(20), 900), after(20)) // the clock resolution between goroutines

	got, missing := p.added()
	slices.Sort(got)
	if want := []float64{-1, 1, 3}; !slices.Equal(got, want) {
		t.Errorf("added %v ms, want %v", got, want)
	}
	if missing != 1 {
		t.Errorf("%d missing, want the 1 between two that came: before the first and after the last the far viewer was not there", missing)
	}
}
