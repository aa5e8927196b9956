package vivaldi

import (
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/serf/coordinate"

	"weir/capacity/pb"
)

// Two nodes that measure the same round trip repeatedly learn to predict it.
func TestCoordinatesPredictRoundTrips(t *testing.T) {
	a, errA := New()
	b, errB := New()
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	const rtt = 40 * time.Millisecond
	for range 200 {
		a.Observe("b", FromWire(ToWire(b.Here())), rtt)
		b.Observe("a", FromWire(ToWire(a.Here())), rtt)
	}
	if got := a.Predict(b.Here()); got < rtt/2 || got > 2*rtt {
		t.Errorf("predicted %v, measured %v", got, rtt)
	}
	if got := a.Predict(nil); got != 0 {
		t.Errorf("predicted %v of a node that is nowhere", got)
	}
}

func TestMeasurementsThatAreNoneAreIgnored(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	before := c.Here()
	c.Observe("p", nil, time.Second)
	c.Observe("p", before, 0)
	c.Observe("p", before, time.Hour)
	if here := c.Here(); !reflect.DeepEqual(here, before) {
		t.Errorf("moved to %+v", here)
	}
}

func TestWire(t *testing.T) {
	if ToWire(nil) != nil {
		t.Error("no coordinate is sent as one")
	}
	want := coordinate.NewCoordinate(coordinate.DefaultConfig())
	want.Vec[3], want.Height = 0.5, 0.25
	if got := FromWire(ToWire(want)); got.Vec[3] != 0.5 || got.Height != 0.25 {
		t.Errorf("sent %+v, got %+v", want, got)
	}
	for name, w := range map[string]*pb.Coordinate{
		"none":                nil,
		"of another size":     {Vec: make([]float32, 3)},
		"not a number":        {Vec: []float32{0, 0, 0, 0, 0, 0, 0, float32(math.NaN())}},
		"infinitely far away": {Vec: make([]float32, 8), Height: float32(math.Inf(1))},
	} {
		if c := FromWire(w); c != nil {
			t.Errorf("%s: read as %+v", name, c)
		}
	}
}
