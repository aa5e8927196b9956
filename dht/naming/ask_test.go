package naming

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"weir/capacity/capacitytest"
	"weir/dht/holder"
	"weir/dht/overlay"
	"weir/dht/pb"
)

// others are the nodes of a network that is none: they answer by answer, after
// a while.
type others struct {
	t       *testing.T
	after   time.Duration
	answer  *pb.Response
	refuses bool
	failed  error
	heard   bool
}

func (o *others) Context() context.Context { return o.t.Context() }
func (o *others) Go(f func()) bool         { go f(); return true }
func (o *others) Call(ctx context.Context, _ peer.ID, _ protocol.ID, _, resp proto.Message, _ int) (time.Duration, overlay.Cost, error) {
	select {
	case <-time.After(o.after):
		proto.Merge(resp, o.answer)
		return o.after, overlay.Cost{}, nil
	case <-ctx.Done():
		return 0, overlay.Cost{}, ctx.Err()
	}
}
func (o *others) Locate(context.Context, peer.ID)       {}
func (o *others) Refuses(context.Context, peer.ID) bool { return o.refuses }
func (o *others) Answered(peer.ID, time.Duration)       { o.heard = true }
func (o *others) Failed(_ peer.ID, err error)           { o.failed = err }

// An answer is waited for as long as the node may be running; one whose machine
// says that it is not is known to have gone at once.
func TestAsk(t *testing.T) {
	free := &pb.Response{Op: &pb.Response_Claim{Claim: &pb.ClaimReply{}}}
	for name, c := range map[string]struct {
		others
		took       time.Duration
		err        error // nil: an answer, or any error if failed
		failed     bool
		left, told bool // gone; has answered
	}{
		"it answers":                    {others: others{after: time.Millisecond, answer: free}, took: time.Millisecond, told: true},
		"it answers late":               {others: others{after: time.Second, answer: free}, took: time.Second, told: true},
		"it is silent":                  {others: others{after: time.Hour}, took: 2 * time.Second, err: context.DeadlineExceeded},
		"its process has ended":         {others: others{after: time.Hour, refuses: true}, took: askIfThere, err: overlay.ErrUnreachable, left: true},
		"it refuses":                    {others: others{answer: &pb.Response{Error: "no"}}, failed: true, told: true},
		"it answers something else":     {others: others{answer: &pb.Response{}}, failed: true, told: true},
		"its process is gone, too late": {others: others{after: askIfThere - 1, answer: free, refuses: true}, took: askIfThere - 1, told: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.t = t
				left := false
				a := &Asker{Overlay: &c.others, Peers: &c.others, Left: func(time.Time, peer.ID) { left = true }}
				start := time.Now()
				reply, err := a.Ask(t.Context(), "id", &pb.Claim{}, 2*time.Second)
				if took := time.Since(start); took != c.took {
					t.Errorf("took %v, want %v", took, c.took)
				}
				if fine := c.err == nil && !c.failed; fine != (err == nil && reply != nil) || c.err != nil && !errors.Is(err, c.err) {
					t.Errorf("%v, %v", reply, err)
				}
				if left != c.left || c.heard != c.told || errors.Is(c.others.failed, c.err) != true {
					t.Errorf("left %v, answered %v, failed with %v", left, c.heard, c.others.failed)
				}
			})
		})
	}
}

// No answer makes a poll remember more than it may, or nodes that are none.
func FuzzHeard(f *testing.F) {
	a, b := &pb.Peer{Id: []byte(capacitytest.ID(f, "a"))}, &pb.Peer{Id: []byte("x")}
	for _, m := range []*pb.ClaimReply{
		{},
		{Own: pb.ClaimReply_TAKING, Rivals: []*pb.ClaimReply_Rival{{Node: a, HeardMs: 1 << 31}, {Node: b}, {}}},
		{Closer: []*pb.Peer{a, b, {}}},
		{Own: pb.ClaimReply_PUBLISHED, HeldMs: 1 << 63, SameRight: true},
		{Own: 77, Rivals: make([]*pb.ClaimReply_Rival, maxRivals+1), Closer: make([]*pb.Peer, maxCloser+1)},
	} {
		w, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(w)
	}
	r := New(Config{ID: "me", Introduced: func(w *pb.Peer) (peer.ID, bool) {
		ai, err := w.AddrInfo()
		return ai.ID, err == nil
	}})
	f.Fuzz(func(t *testing.T, w []byte) {
		var reply pb.ClaimReply
		if proto.Unmarshal(w, &reply) != nil {
			return
		}
		p := r.newPoll(holder.StreamTopic("a"), pb.Claim_TAKE, nil)
		p.heard(pollAnswer{from: "holder", reply: &reply})
		if len(p.rivals) > maxRivals || len(p.closer) > maxCloser {
			t.Fatalf("%d rivals, %d closer holders", len(p.rivals), len(p.closer))
		}
		for id := range p.closer {
			if id.Validate() != nil || id == "me" {
				t.Fatalf("closer is %q", id)
			}
		}
		for id, heard := range p.rivals {
			if id.Validate() != nil || heard.After(time.Now()) {
				t.Fatalf("rival %q, heard of %v", id, heard)
			}
		}
		for id, held := range p.held {
			if held.Held < 0 {
				t.Fatalf("%s holds the name for %v", id, held.Held)
			}
		}
		_ = p.taken()
		_ = p.publishers()
	})
}
