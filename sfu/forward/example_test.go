package forward_test

import (
	"fmt"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"weir/sfu/forward"
)

// A printer is the far end of a DownTrack, without a network.
type printer struct{}

func (printer) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	fmt.Printf("SSRC %d, payload type %d: number %d at %d\n", h.SSRC, h.PayloadType, h.SequenceNumber, h.Timestamp)
	return h.MarshalSize() + len(payload), nil
}

func (printer) WriteRTCP([]rtcp.Packet) error { return nil }

// A silent publisher gets keyframe requests and sends no keyframe.
type silent struct{}

func (silent) RequestKeyframe() bool { return true }

// The numbering of a viewer continues when its track comes from another
// publisher.
func Example() {
	track := &forward.Track{ID: "audio0", Codec: forward.Codec{MimeType: "audio/opus", ClockRate: 48000, Channels: 2}}
	viewer := forward.NewDownTrack(track)
	viewer.Bind(forward.Binding{Sender: printer{}, SSRC: 7, PayloadType: 111})
	track.Add(viewer)

	now := time.Now()
	first := track.Attach(silent{})
	first.Forward(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: 65535, Timestamp: 960}}, now)
	second := track.Attach(silent{})
	second.Forward(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: 400, Timestamp: 5}}, now.Add(time.Second))
	out := first.Forward(&rtp.Packet{Header: rtp.Header{Version: 2, SequenceNumber: 0, Timestamp: 1920}}, now.Add(time.Second))
	track.Settle()
	track.Remove(viewer)
	fmt.Println(out.Reason)

	// Output:
	// SSRC 7, payload type 111: number 65535 at 960
	// SSRC 7, payload type 111: number 0 at 48960
	// source_replaced
}
