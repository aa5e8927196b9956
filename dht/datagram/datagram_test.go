package datagram

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"weir/dht/holder"
	"weir/dht/holding"
	"weir/dht/pb"
)

// Each part of a datagram goes to its function, and the answer is the holder's.
func TestTake(t *testing.T) {
	const networkID = "0123456789abcdef"
	var told []string
	rates := &holder.RateLimit{}
	x := New(Config{
		NetworkID: networkID, Rates: rates,
		Heard:    func(from peer.ID) { told = append(told, "heard "+string(from)) },
		Answered: func(peer.ID, uint32, *pb.AdvertiseReply) { told = append(told, "answered") },
		Lacks:    func(_ peer.ID, topic holder.Topic) { told = append(told, "lacks "+string(topic)) },
		Hold: func(_ time.Time, _ peer.ID, m *pb.Datagram) (*pb.Datagram, error) {
			told = append(told, "hold")
			return &pb.Datagram{Answers: m.Id}, nil
		},
	})
	wire := func(m *pb.Datagram) []byte {
		b, err := proto.MarshalOptions{}.MarshalAppend(Prefix(networkID), m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	now := time.Now()
	for _, b := range [][]byte{nil, wire(nil)[1:], append(wire(nil), make([]byte, MaxSize+1)...)} {
		if _, err := x.Take(now, "a", b); !errors.Is(err, ErrForeign) {
			t.Errorf("%d bytes: %v, want %v", len(b), err, ErrForeign)
		}
	}
	if _, err := x.Take(now, "a", append(Prefix(networkID), 0xff, 0xff)); err == nil || len(told) > 0 {
		t.Errorf("garbage: %v, told of %v", err, told)
	}
	lacking := []string{"1", "2", "3", "4", "5"}
	a, err := x.Take(now, "a", wire(&pb.Datagram{Id: 7, Answers: 6, Answer: &pb.AdvertiseReply{}, Lacking: lacking}))
	if err != nil || a.GetAnswers() != 7 {
		t.Errorf("answer %v, %v", a, err)
	}
	if want := []string{"heard a", "answered", "lacks 1", "lacks 2", "lacks 3", "lacks 4", "hold"}; !slices.Equal(told, want) {
		t.Errorf("told %s, want %s", strings.Join(told, ", "), strings.Join(want, ", "))
	}
	for rates.Allow(now, "a") {
	}
	told = nil
	if _, err := x.Take(now, "a", wire(&pb.Datagram{})); !errors.Is(err, holding.ErrFlood) || told != nil {
		t.Errorf("of too many: %v, told %v", err, told)
	}
	if !bytes.Equal(x.prefix, Prefix(networkID)) {
		t.Error("the prefix has changed")
	}
}
