package red

import (
	"bytes"
	"testing"
)

// two is a packet with a block of three bytes, 960 samples earlier, and its own.
var two = []byte{0x80 | 111, 960 >> 6, 960 << 2 & 0xff, 3, 111, 1, 2, 3, 4, 5}

func TestBlocks(t *testing.T) {
	for _, c := range []struct {
		name    string
		payload []byte
		primary []byte // nil: not valid
	}{
		{"two blocks", two, []byte{4, 5}},
		{"one block", []byte{111, 7, 8}, []byte{7, 8}},
		{"an empty primary block", []byte{0x80 | 111, 0, 0, 1, 111, 9}, []byte{}},
		{"nothing", nil, nil},
		{"a header cut short", []byte{0x80 | 111, 0, 0}, nil},
		{"no last header", []byte{0x80 | 111, 0, 0, 0}, nil},
		{"a block longer than the packet", []byte{0x80 | 111, 0, 3, 0xff, 111, 1}, nil},
		{"nothing but headers", bytes.Repeat([]byte{0xff, 0, 0, 0}, 300), nil},
	} {
		if got := Primary(c.payload); !bytes.Equal(got, c.primary) || Valid(c.payload) != (c.primary != nil) {
			t.Errorf("%s: %v, want %v", c.name, got, c.primary)
		}
	}
}

func TestTypesAreRewritten(t *testing.T) {
	want := append([]byte{9, 0x80 | 96, two[1], two[2], 3, 96}, two[5:]...)
	if got := AppendTyped([]byte{9}, two, 96); !bytes.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := Primary(AppendAlone(nil, []byte{1, 2}, 111)); !bytes.Equal(got, []byte{1, 2}) {
		t.Errorf("%v alone", got)
	}
}

// FuzzBlocks checks that rewriting changes nothing but types.
func FuzzBlocks(f *testing.F) {
	f.Add(two)
	f.Add([]byte{111})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		got := AppendTyped(nil, b, 7)
		if !bytes.Equal(before, b) || len(got) != len(b) || Valid(got) != Valid(b) || !bytes.Equal(Primary(got), Primary(b)) {
			t.Fatalf("%v became %v", b, got)
		}
		if !Valid(b) && !bytes.Equal(got, b) {
			t.Fatal("what is not valid was changed")
		}
	})
}
