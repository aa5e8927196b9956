package cascade

import (
	"testing"

	"weir/sfu/pb"
)

func TestNegotiatorsKeepToTheProtocol(t *testing.T) {
	done := make(chan struct{})
	n := &negotiator{dialer: true, done: done, wanted: make(chan struct{}, 1), remote: make(chan *pb.Description, 1)}
	n.want()
	n.want() // requests the same offer
	<-n.wanted
	if err := n.described(&pb.Description{}); err != nil {
		t.Error(err)
	}
	if n.described(&pb.Description{}) == nil {
		t.Error("a second description was taken before the first was answered")
	}
	if n.run() == nil {
		t.Error("an answer that nobody asked for was taken")
	}
	close(done)
	if err := n.run(); err != nil {
		t.Errorf("a link that has ended: %v", err)
	}
	n.dialer = false
	n.want()
	if len(n.wanted) != 0 {
		t.Error("the end that did not open the link wants to make an offer")
	}
}
