package forward

import (
	"bytes"
	"testing"
	"time"

	"github.com/pion/rtp"

	"weir/sfu/layer"
)

// Header extensions keep their values under other IDs, in a form that the far
// end takes: those that have none are left out, and harm no other.
func TestExtensionForms(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 40)
	for _, c := range []struct {
		name  string
		form  Form
		short uint8 // IDs at the far end
		long  uint8
		value []byte // of long
		want  uint16 // profile
		both  bool
	}{
		{"both fit one byte", Mixed, 3, 4, []byte("y"), rtp.ExtensionProfileOneByte, true},
		{"a long value makes two bytes", Mixed, 3, 4, long, rtp.ExtensionProfileTwoByte, true},
		{"a high ID does, too", Mixed, 3, 20, []byte("y"), rtp.ExtensionProfileTwoByte, true},
		{"also if it comes first", Mixed, 20, 3, []byte("y"), rtp.ExtensionProfileTwoByte, true},
		{"a long value is left out of one byte", OneByte, 3, 4, long, rtp.ExtensionProfileOneByte, false},
		{"a high ID is left out of one byte", OneByte, 3, 15, []byte("y"), rtp.ExtensionProfileOneByte, false},
		{"two bytes throughout", TwoByte, 3, 4, []byte("y"), rtp.ExtensionProfileTwoByte, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r ring
			s := newSource(&UpTrack{track: &Track{}}, map[uint8]string{1: "short", 16: "long"})
			p := packet(1, 0, []byte("payload"))
			p.Extension, p.ExtensionProfile = true, rtp.ExtensionProfileTwoByte
			for id, v := range map[uint8][]byte{1: []byte("s"), 16: c.value} {
				if err := p.SetExtension(id, v); err != nil {
					t.Fatal(err)
				}
			}
			k, _ := r.put(s, p, layer.Info{}, false, time.Now())
			h := rtp.Header{Version: 2}
			k.addExtensions(&h, map[uint8]uint8{1: c.short, 16: c.long}, c.form)
			raw, err := h.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			var got rtp.Header
			if _, err := got.Unmarshal(raw); err != nil {
				t.Fatal(err)
			}
			if got.ExtensionProfile != c.want || string(got.GetExtension(c.short)) != "s" || bytes.Equal(got.GetExtension(c.long), c.value) != c.both {
				t.Errorf("profile %#x, short %q, long %q", got.ExtensionProfile, got.GetExtension(c.short), got.GetExtension(c.long))
			}
		})
	}
}

// The first packets say which section they are of.
func TestFirstPacketsHaveTheMID(t *testing.T) {
	track := vp8Track()
	src := track.Attach(never)
	l, o := &fakeSender{}, NewDownTrack(track)
	o.Bind(Binding{Sender: l, SSRC: 1, PayloadType: 96, MID: []byte("v"), MIDExtension: 5})
	add(t, track, o)
	feed(src, packet(1, 0, keyPayload))
	for i := range maxMIDs {
		feed(src, packet(uint16(2+i), 0, deltaPayload))
	}
	if n := len(l.sent); n != maxMIDs+1 {
		t.Fatalf("%d packets sent", n)
	}
	for i, h := range l.sent {
		if got, want := string(h.GetExtension(5)) == "v", i < maxMIDs; got != want {
			t.Errorf("packet %d has the MID: %v", i, got)
		}
	}
}
