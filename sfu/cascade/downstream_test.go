package cascade

import (
	"testing"

	"weir/sfu/sdp"
)

// A node is told only of codecs that it forwards: of another one it would end
// the link. One that names none is of a release that knows the first ones.
func TestPullersGetOnlyCodecsThatTheyForward(t *testing.T) {
	for _, mime := range sdp.ForwardableCodecs() {
		if !forwards(sdp.ForwardableCodecs(), mime) {
			t.Errorf("%s is refused to a node of this release", mime)
		}
		if forwards([]string{"video/theora"}, mime) {
			t.Errorf("%s is sent to a node that does not name it", mime)
		}
		if got, want := forwards(nil, mime), mime != "video/H265" && mime != "audio/multiopus" && mime != "audio/red"; got != want {
			t.Errorf("%s to a node that names nothing: %v, want %v", mime, got, want)
		}
	}
}
