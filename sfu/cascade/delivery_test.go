package cascade

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"weir/capacity/ledger"
	"weir/sfu/forward"
	"weir/sfu/udp"
)

// A judged link has one source, which the test advances, and its own clock.
type judged struct {
	*Link
	delivery
	now   time.Time
	track *forward.Track
	up    *forward.UpTrack
	sent  uint32
	told  []float64
}

func newJudged(t *testing.T) *judged {
	socket, err := udp.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = socket.Close() })
	j := &judged{now: time.Unix(1_000_000, 0), track: &forward.Track{}}
	j.up = j.track.Attach(deaf{})
	feeds := map[string]*feed{"video0": {up: j.up}}
	j.Link = &Link{
		Peer: "sender", upstreams: map[uint64]*upstream{1: {feeds: feeds}},
		links: &Links{cfg: Config{
			Overflowed: func() int64 { return socket.Counters().Overflowed }, Ledger: ledger.New("self", ledger.Limits{}),
			Delivered: func(node peer.ID, share float64) {
				if node != "sender" {
					t.Errorf("told of %s", node)
				}
				j.told = append(j.told, share)
			},
		}},
	}
	return j
}

// deaf is a Receiver that drops all requests.
type deaf struct{}

func (deaf) RequestKeyframe() bool { return true }

// second advances the clock by a second, in which the peer sends so many
// packets and loses some.
func (j *judged) second(sent, lost int64) {
	j.now = j.now.Add(time.Second)
	for i := range sent {
		if j.sent++; i == 0 && lost < sent || i > lost {
			j.up.Forward(&rtp.Packet{Header: rtp.Header{SequenceNumber: uint16(j.sent)}}, j.now)
		}
	}
	j.up.SenderReport(&rtcp.SenderReport{PacketCount: j.sent}, j.now)
	j.judge(j.now, &j.delivery)
}

func TestLinksAreJudged(t *testing.T) {
	seconds := func(j *judged, n int, sent, lost int64) {
		for range n {
			j.second(sent, lost)
		}
	}
	for _, c := range []struct {
		name string
		run  func(j *judged)
		want []float64
	}{
		{"once in five seconds", func(j *judged) { seconds(j, 18, 100, 0) }, []float64{1, 1, 1}},
		{"by what is lost", func(j *judged) { seconds(j, 7, 100, 20) }, []float64{0.8}},
		{"not by the first second", func(j *judged) {
			seconds(j, 2, 100, 90)
			seconds(j, 5, 100, 0)
		}, []float64{1}},
		{"not by a few packets", func(j *judged) { seconds(j, 11, 10, 5) }, nil},
		{"by few packets over a longer time", func(j *judged) { seconds(j, 14, 10, 5) }, []float64{0.5}},
		{"when it stalls", func(j *judged) {
			seconds(j, 7, 100, 0)
			seconds(j, 5, 100, 100)
		}, []float64{1, 0}},
		{"not while we are short of CPU ourselves", func(j *judged) {
			j.links.cfg.Ledger.Observe(j.now, ledger.Load{CPU: 0.95})
			seconds(j, 20, 100, 20)
			j.links.cfg.Ledger.Observe(j.now, ledger.Load{CPU: 0.5})
			seconds(j, 8, 100, 0)
		}, []float64{1}},
		{"not by a source that has gone", func(j *judged) {
			seconds(j, 5, 100, 50)
			j.up, j.sent = j.track.Attach(deaf{}), 0
			j.upstreams[1].feeds["video0"].up = j.up
			seconds(j, 10, 100, 20)
		}, []float64{0.8}},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := newJudged(t)
			c.run(j)
			if !slices.EqualFunc(j.told, c.want, func(a, b float64) bool { return math.Abs(a-b) < 1e-9 }) {
				t.Errorf("told %v, want %v", j.told, c.want)
			}
		})
	}
}
