package publish

import (
	"testing"

	"weir/dht/pb"
)

// A split notice that waits for a busy holder is not replaced by the record
// that comes after it, nor a record by a split notice.
func TestSplitNoticesAndRecordsShareAnEntry(t *testing.T) {
	notice, look := update{&pb.Entry{Topic: "t", Deeper: true}, 0}, update{&pb.Entry{Topic: "t"}, 0}
	record, withdrawal := update{&pb.Entry{Topic: "t", Sealed: []byte("r"), Known: []byte("k")}, 3}, update{&pb.Entry{Topic: "t", Seq: 7}, 0}
	delta := update{&pb.Entry{Topic: "t", Update: []byte("a"), Known: []byte("k")}, 3}
	for _, c := range []struct {
		name   string
		first  update
		then   update
		sealed string
		seq    uint64
		deeper bool
		base   uint64
	}{
		{"a notice, then a record", notice, record, "r", 0, true, 3},
		{"a record, then a notice", record, notice, "r", 0, true, 3},
		{"a notice, then a withdrawal", notice, withdrawal, "", 7, true, 0},
		{"a withdrawal, then a notice", withdrawal, notice, "", 7, true, 0},
		{"a record, then a withdrawal", record, withdrawal, "", 7, false, 0},
		{"a withdrawal, then a record", withdrawal, record, "r", 0, false, 3},
		{"a record, then a look", record, look, "r", 0, false, 3},
		{"a record, then an update of it", record, delta, "", 0, false, 3},
		{"an update, then a notice", delta, notice, "", 0, true, 3},
		{"an update, then a withdrawal", delta, withdrawal, "", 7, false, 0},
	} {
		m := merged(c.first, c.then)
		if string(m.Sealed) != c.sealed || m.Seq != c.seq || m.Deeper != c.deeper || m.base != c.base || (m.base > 0) != (len(m.Sealed)+len(m.Update) > 0) {
			t.Errorf("%s: %v", c.name, m)
		}
	}
	if notice.Sealed != nil || record.Deeper || withdrawal.Deeper {
		t.Error("an entry that others share was changed")
	}
}
