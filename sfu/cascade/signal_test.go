package cascade

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.opentelemetry.io/otel/trace/noop"

	"weir/capacity/ledger"
	"weir/sfu/pb"
	"weir/sfu/tree"
)

// Signalling of a peer is bounded and never panics.
func FuzzReadMessage(f *testing.F) {
	for _, m := range []*pb.Message{
		{Body: &pb.Message_Subscribe{Subscribe: &pb.Subscribe{Pull: 1, Stream: "demo"}}},
		{Body: &pb.Message_Subscribed{Subscribed: &pb.Subscribed{Pull: 1, Tracks: []*pb.Track{{Id: "video0", Mime: "video/VP8", Clock: 90000}}}}},
		{Body: &pb.Message_Offer{Offer: &pb.Description{Sdp: "v=0", Slots: []*pb.Slot{{Mid: "0", Pull: 1, Track: "video0"}}}}},
		{Body: &pb.Message_Beats{Beats: &pb.Beats{Beats: []*pb.Beat{{Pull: 1, Count: 3, Age: 20}, {Pull: 1, Count: 1 << 63}}}}},
		{Body: &pb.Message_Leave{Leave: &pb.Leave{Pull: 1}}},
		{Body: &pb.Message_Ping{Ping: &pb.Ping{Time: 1}}},
	} {
		var b bytes.Buffer
		if err := writeMessage(&b, m); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bufio.NewReader(bytes.NewReader(b)))
		if err == nil && m == nil {
			t.Error("neither a message nor an error")
		}
		if err != nil {
			return
		}
		// A link that has just been opened handles the message.
		l := &Link{queue: make(chan *pb.Message, sendQueue), negotiator: &negotiator{remote: make(chan *pb.Description, 1)}, done: make(chan struct{}),
			upstreams: map[uint64]*upstream{}, downstreams: map[uint64]*downstream{}, sections: newSections(), links: &Links{}}
		l.links.cfg = Config{Ledger: ledger.New("self", ledger.Limits{}), Stream: func(string) *tree.Stream { return nil }, Tracer: noop.Tracer{}}
		in := &upstream{link: l, pull: 1, result: make(chan error, 1), moved: make(chan []peer.ID, 1), done: make(chan struct{}), mids: map[string]string{}, beats: newBeats(), leaving: make(chan struct{})}
		l.upstreams[1] = in
		_ = l.handle(m)
		if n := len(in.described); n > maxTracks {
			t.Errorf("%d tracks accepted", n)
		}
	})
}
