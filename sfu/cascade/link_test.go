package cascade

import "testing"

// The log distinguishes a lost link from one that ended in good order.
func TestLinksEndInGoodOrderOrAreLost(t *testing.T) {
	for why, want := range map[string]string{
		whyClosing: "", whyUnused: "", whyClosed: "", reasonCrossed: "", "media connection closed": "",
		"media connection failed": "lost", "signalling: connection reset by peer": "lost", "the peer does not read what we send": "lost",
	} {
		if got := (&Link{why: why}).lost(); got != want {
			t.Errorf("%q is %q, want %q", why, got, want)
		}
	}
}
