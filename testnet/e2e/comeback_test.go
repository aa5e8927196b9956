package e2e

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"weir/sfu/client"
)

// A publisher that is killed comes back: at its node, at a relay of its stream,
// or at a node that has nothing of it. No viewer's session ends, on any node, and
// all get its packets; the time until then is logged.
func TestKilledPublisherComesBack(t *testing.T) {
	t.Parallel()
	w := up(t, 4, nil)
	origin, relay, other, idle := w.n(1), w.n(2), w.n(3), w.n(4)
	for where, at := range map[string]node{"same": origin, "relay": relay, "elsewhere": idle} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			first := publishRTP(t, origin.whip(where), true, nil)
			first.on(true)
			var viewers []*client.Viewer
			for _, n := range []node{origin, relay, other} {
				n.finds(t, where)
				viewers = append(viewers, view(t, n.whep(where)))
			}
			for _, v := range viewers {
				got(t, v, 20, 2)
			}
			first.dead.Store(true)
			killed := time.Now()
			offer := strings.ReplaceAll(offerOf(t, newPeer(t), nil), "recvonly", "sendonly")
			if resp, body := send(t, http.MethodPost, at.whip(where), "application/sdp", offer, nil); resp.StatusCode != http.StatusConflict {
				t.Errorf("at once: %s %s, want 409", resp.Status, body)
			}
			second := publishRTPWhenFree(t, at.whip(where))
			accepted := time.Since(killed)
			second.on(true)
			for _, v := range viewers {
				got(t, v, 30, 2)
			}
			t.Logf("accepted %v after the kill, all viewers have its packets after %v; gaps %v", accepted.Round(10*time.Millisecond), time.Since(killed).Round(10*time.Millisecond), gaps(viewers))
		})
	}
}

// publishRTPWhenFree tries until the name is given to it.
func publishRTPWhenFree(t *testing.T, url string) *rtpPublisher {
	t.Helper()
	var p *rtpPublisher
	var tried time.Time
	eventually(t, "the name is given to another", func() (ok bool) {
		if time.Since(tried) < 200*time.Millisecond { // each try is a connection until the end of the test
			return false
		}
		tried = time.Now()
		p, ok = tryPublishRTP(t, url, true, nil)
		return ok
	})
	return p
}

// gaps returns the longest time of each viewer without a packet.
func gaps(viewers []*client.Viewer) (all []time.Duration) {
	for _, v := range viewers {
		var longest time.Duration
		for _, tr := range v.Stats().Tracks {
			longest = max(longest, tr.LongestGap)
		}
		all = append(all, longest.Round(10*time.Millisecond))
	}
	slices.Sort(all)
	return all
}
