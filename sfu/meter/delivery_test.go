package meter

import (
	"math"
	"testing"
)

// Neither reports nor sequence numbers are trusted alone.
func TestShareOfWhatWasSent(t *testing.T) {
	report := func(sent uint32, came int64) *SourceReport { return &SourceReport{sent, came} }
	from := Tally{Came: 1000, Lost: 10, Report: report(1010, 1000)}
	for _, c := range []struct {
		name  string
		now   Tally
		sent  int64
		share float64
	}{
		{"all came", Tally{Came: 1500, Lost: 10, Report: report(1510, 1500)}, 500, 1},
		{"a tenth was lost on the way", Tally{Came: 1450, Lost: 60, Report: report(1510, 1450)}, 500, 0.9},
		{"the sender lacked a tenth itself", Tally{Came: 1450, Lost: 60, Report: report(1460, 1450)}, 450, 1},
		{"a tenth had come but waited to be read", Tally{Came: 1500, Lost: 10, Report: report(1510, 1450)}, 500, 1},
		{"nothing comes", Tally{Came: 1000, Lost: 10, Report: report(1510, 1000)}, 500, 0},
		{"nothing is sent", Tally{Came: 1000, Lost: 10, Report: report(1010, 1000)}, 0, 1},
		{"late ones fill old gaps", Tally{Came: 1510, Lost: 0, Report: report(1510, 1510)}, 500, 1},
		{"no further report", Tally{Came: 1100, Lost: 400, Report: from.Report}, 0, 1},
		{"a count that goes back", Tally{Came: 1450, Lost: 60, Report: report(10, 1450)}, 0, 1},
		{"no report at all", Tally{Came: 1450, Lost: 60}, 0, 1},
	} {
		if sent, share := c.now.since(from); sent != c.sent || math.Abs(share-c.share) > 1e-9 {
			t.Errorf("%s: %v of %d, want %v of %d", c.name, share, sent, c.share, c.sent)
		}
	}
	last := Tally{Came: 1, Report: report(math.MaxUint32-99, 1)}
	if sent, share := (Tally{Came: 201, Report: report(100, 201)}).since(last); sent != 200 || share != 1 {
		t.Errorf("over the count's end: %v of %d", share, sent)
	}
}
