package forward

import (
	"math"
	"testing"
)

// Neither reports nor sequence numbers are trusted alone.
func TestShareOfWhatWasSent(t *testing.T) {
	report := func(sent uint32, came int64) *sourceReport { return &sourceReport{sent, came} }
	from := Tally{came: 1000, lost: 10, report: report(1010, 1000)}
	for _, c := range []struct {
		name  string
		now   Tally
		sent  int64
		share float64
	}{
		{"all came", Tally{came: 1500, lost: 10, report: report(1510, 1500)}, 500, 1},
		{"a tenth was lost on the way", Tally{came: 1450, lost: 60, report: report(1510, 1450)}, 500, 0.9},
		{"the sender lacked a tenth itself", Tally{came: 1450, lost: 60, report: report(1460, 1450)}, 450, 1},
		{"a tenth had come but waited to be read", Tally{came: 1500, lost: 10, report: report(1510, 1450)}, 500, 1},
		{"nothing comes", Tally{came: 1000, lost: 10, report: report(1510, 1000)}, 500, 0},
		{"nothing is sent", Tally{came: 1000, lost: 10, report: report(1010, 1000)}, 0, 1},
		{"late ones fill old gaps", Tally{came: 1510, lost: 0, report: report(1510, 1510)}, 500, 1},
		{"no further report", Tally{came: 1100, lost: 400, report: from.report}, 0, 1},
		{"a count that goes back", Tally{came: 1450, lost: 60, report: report(10, 1450)}, 0, 1},
		{"no report at all", Tally{came: 1450, lost: 60}, 0, 1},
	} {
		if sent, share := c.now.since(from); sent != c.sent || math.Abs(share-c.share) > 1e-9 {
			t.Errorf("%s: %v of %d, want %v of %d", c.name, share, sent, c.share, c.sent)
		}
	}
	last := Tally{came: 1, report: report(math.MaxUint32-99, 1)}
	if sent, share := (Tally{came: 201, report: report(100, 201)}).since(last); sent != 200 || share != 1 {
		t.Errorf("over the count's end: %v of %d", share, sent)
	}
}
