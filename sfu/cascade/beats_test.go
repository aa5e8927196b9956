package cascade

import (
	"testing"
	"testing/synctest"
	"time"

	"weir/sfu/pb"
	"weir/sfu/tree"
)

// The beat of a subscription ages until it is used: a move may take seconds.
func TestFirstBeatAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := &upstream{beats: newBeats()}
		if b, ok := in.Beat(); ok {
			t.Errorf("%v of a node without beats", b)
		}
		in.beats.subscribed(&pb.Beat{Count: 3, Age: 100})
		time.Sleep(2 * time.Second)
		if b, ok := in.Beat(); !ok || b != (tree.Beat{Count: 3, Age: 2100 * time.Millisecond}) {
			t.Errorf("%v, %t", b, ok)
		}
	})
}
