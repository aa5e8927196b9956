package rtc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"

	"weir/capacity/task"
	"weir/sfu/forward"
	"weir/sfu/sdp"
	"weir/sfu/steering"
)

// A Client is the media connection of one WHIP or WHEP client. Quiet, Look,
// Adopt, Sections and NotForwarded are for publishers. Restart and Add are
// called by one goroutine at a time.
type Client struct {
	*Transport
	tasks     task.Group    // readers of RTCP, begin
	connected chan struct{} // closed when media can flow
	ended     chan string   // why the connection has ended, or has to; the first counts

	outs     []*LocalTrack      // of a viewer
	steering *steering.Steering // of a viewer, by its connection
	in       *Ingress           // of a publisher

	tracks []*forward.Track // of a publisher
	left   []*forward.Track // tracks of the stream without a section of the viewer
	// Offer is the last accepted offer, on which a restart is based.
	Offer *sdp.Offer

	candidates []sdp.Candidate // trickled candidates

	pausing        sync.Mutex // held while tracks are added and removed
	paused         map[forward.Kind]bool
	begun, stopped bool

	mu     sync.Mutex
	unused map[string]int // unused candidates, by reason
}

func newClient(o *sdp.Offer) *Client {
	return &Client{connected: make(chan struct{}), ended: make(chan string, 1), Offer: o, unused: maps.Clone(o.Skipped), paused: map[forward.Kind]bool{}}
}

// watch records the state of the connection.
func (t *Client) watch() {
	var once sync.Once
	t.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			once.Do(func() {
				close(t.connected)
				t.tasks.Go(t.begin)
			})
		case webrtc.PeerConnectionStateFailed:
			t.end("the client fell silent")
		case webrtc.PeerConnectionStateClosed:
			t.end("the client closed the connection")
		}
	})
}

func (t *Client) end(why string) {
	select {
	case t.ended <- why:
	default:
	}
}

// answer sets the client's offer in the PeerConnection and returns the answer,
// with all of our candidates in it.
func (t *Client) answer(ctx context.Context, o *sdp.Offer) (string, error) {
	if err := t.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.Text()}); err != nil {
		return "", sdp.Error(err.Error())
	}
	// By default pion answers all sections of a kind with one payload type.
	for _, tr := range t.GetTransceivers() {
		for _, section := range o.Taken {
			if tr.Mid() != section.PionMID() {
				continue
			}
			if err := tr.SetCodecPreferences(section.Codec.WithFeedback().Params()); err != nil {
				return "", sdp.Error(err.Error())
			}
		}
	}
	for _, o := range t.outs {
		if o.Bound() {
			continue // a restart
		}
		sender, err := t.AddTrack(o)
		if err != nil {
			return "", err
		}
		t.tasks.Go(func() { ReadRTCP(sender, func() *forward.DownTrack { return o.DownTrack }) })
	}
	answer, err := t.CreateAnswer(nil)
	if err != nil {
		return "", sdp.Error(err.Error())
	}
	local, err := t.SetLocal(ctx, answer)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", sdp.Error(err.Error())
	}
	t.AwaitChecking(ctx)
	return sdp.SortCandidates(local), nil
}

// Connected is closed when media can flow.
func (t *Client) Connected() <-chan struct{} { return t.connected }

// Ended receives the reason why the connection has ended, or has to.
func (t *Client) Ended() <-chan string { return t.ended }

// Knows reports whether ufrag is, or was, the client's.
func (t *Client) Knows(ufrag string) bool { return t.Offer.Knows(ufrag) }

// Restart serves an ICE restart (RFC 9725, section 4.3.3): it takes new
// credentials of the client and returns ours, as an SDP fragment.
func (t *Client) Restart(ctx context.Context, ufrag, pwd string) (string, error) {
	offer := t.Offer.Restarted(ufrag, pwd)
	answer, err := t.answer(ctx, offer)
	if err != nil {
		return "", err
	}
	t.Offer, t.candidates = offer, nil
	return sdp.RestartFragment(answer), nil
}

// Add notes the client's candidates, as many as one session may have.
// Candidates over the bound or of no use are no error: none is ever sent to, and
// we learn the client's address from its checks.
func (t *Client) Add(f *sdp.Fragment) {
	unused := maps.Clone(f.Skipped)
	for _, c := range f.Candidates {
		switch {
		case f.Ufrag != "" && f.Ufrag != t.Offer.Ufrag:
			unused["of another transport"]++
		case slices.Contains(t.candidates, c) || slices.Contains(t.Offer.Candidates, c):
		case len(t.candidates)+len(t.Offer.Candidates) >= sdp.MaxCandidates:
			unused[sdp.TooMany]++
		default:
			t.candidates = append(t.candidates, c)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for why, n := range unused {
		t.unused[why] += n
	}
}

// NotTaken lists the sections and tracks without media, and why.
func (t *Client) NotTaken() []string {
	all := t.Offer.Refused()
	for _, track := range t.left {
		all = append(all, fmt.Sprintf("track %s (%s): not asked for", track.ID, sdp.Describe(CapabilityOf(track.Codec))))
	}
	return all
}

// Unused counts the unused candidates by reason.
func (t *Client) Unused() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.unused)
}

// State returns the state of the connection, for people.
func (t *Client) State() string { return t.ConnectionState().String() }

// Video reports whether video is sent to the client.
func (t *Client) Video() bool {
	return slices.ContainsFunc(t.outs, func(o *LocalTrack) bool { return o.Track.Codec.Kind() == forward.Video })
}

// RTT returns the round trip to a viewer, by its receiver reports; 0: unknown.
func (t *Client) RTT() (rtt time.Duration) {
	for _, o := range t.outs {
		rtt = max(rtt, o.Sent().RTT)
	}
	return rtt
}

// Traffic returns the totals of the connection: of a publisher in, of a viewer
// out.
func (t *Client) Traffic() forward.Traffic {
	if t.in != nil {
		return t.in.Traffic()
	}
	var all forward.Traffic
	for _, o := range t.outs {
		sent := o.Sent()
		all.Packets += sent.Packets
		all.Bytes += sent.Bytes
		all.Lost += sent.Lost
		all.Skipped += sent.Skipped
	}
	return all
}

// Quiet returns how long a publisher has sent nothing, counted from since at
// the earliest.
func (t *Client) Quiet(now, since time.Time) time.Duration { return t.in.Silence(now, since) }

// Look reports, as events, sections that have begun to send nothing; since is
// when media could flow.
func (t *Client) Look(now, since time.Time) { t.in.Look(now, since) }

// Adopt makes a publisher the source of tracks, of which nothing has been
// received yet, if its own can continue them: then the answers that viewers got
// hold for them.
func (t *Client) Adopt(tracks []*forward.Track) bool {
	if !slices.EqualFunc(tracks, t.tracks, func(a, b *forward.Track) bool {
		return a.ID == b.ID && sdp.Decodes(CapabilityOf(a.Codec), CapabilityOf(b.Codec), false) > 0 &&
			slices.EqualFunc(a.Encodings(), b.Encodings(), func(a, b *forward.Track) bool { return a.RID == b.RID })
	}) {
		return false
	}
	t.in.Adopt(tracks)
	return true
}

// Sections returns the status of a publisher's sections.
func (t *Client) Sections(now time.Time) []sdp.SectionStatus { return t.in.Status(now) }

// NotForwarded counts a publisher's packets that were not forwarded, by reason.
func (t *Client) NotForwarded() map[string]int64 { return t.in.NotForwarded() }

// Stop ends media at once, and does not wait.
func (t *Client) Stop() {
	t.tasks.Stop()
	t.pausing.Lock()
	t.stopped = true
	t.send()
	t.pausing.Unlock()
	if t.in != nil {
		t.in.Close()
	}
}

// Close ends the connection and waits for its goroutines.
func (t *Client) Close() {
	t.tasks.Stop()
	_ = t.GracefulClose()
	t.tasks.Wait()
}
