package sfu

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"

	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
	"weir/sfu/whip"
)

// A transport is the media connection of one WHIP or WHEP client. It implements
// [whip.Transport] and, of a publisher, [whip.Publisher].
type transport struct {
	fence // readers of RTCP, begin
	*rtc.Transport
	connected chan struct{} // closed when media can flow
	ended     chan string   // why the connection, or the client, has ended it; the first counts

	outs []*rtc.LocalTrack // a viewer's
	in   *rtc.Ingress      // a publisher's

	tracks []*forward.Track // a publisher's
	left   []*forward.Track // of the stream, that the viewer has no section for
	offer  *sdp.Offer       // the client's last, to build a restart on

	candidates []sdp.Candidate // that were trickled

	mu     sync.Mutex
	unused map[string]int // candidates that are of no use, by what they are
}

func newTransport(o *sdp.Offer) *transport {
	return &transport{connected: make(chan struct{}), ended: make(chan string, 1), offer: o, unused: maps.Clone(o.Skipped)}
}

// watch notes what becomes of the connection.
func (t *transport) watch() {
	var once sync.Once
	t.OnConnectionStateChange(func(state webrtc.PeerConnectionState) {
		switch state {
		case webrtc.PeerConnectionStateConnected:
			once.Do(func() {
				close(t.connected)
				t.start(t.begin)
			})
		case webrtc.PeerConnectionStateFailed:
			t.end("the client fell silent")
		case webrtc.PeerConnectionStateClosed:
			t.end("the client closed the connection")
		}
	})
}

func (t *transport) end(why string) {
	select {
	case t.ended <- why:
	default:
	}
}

// begin starts media: the connection is up.
func (t *transport) begin() {
	for _, o := range t.outs {
		o.Track.Add(o.DownTrack)
	}
	if t.in != nil {
		t.in.Reachable()
	}
}

// answer gives the client's offer to the PeerConnection and returns the answer,
// with all of our candidates in it.
func (t *transport) answer(ctx context.Context, o *sdp.Offer) (string, error) {
	if err := t.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.Text()}); err != nil {
		return "", sdp.Error(err.Error())
	}
	// Left alone, pion answers all sections of a kind with one payload type.
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
		t.start(func() { rtc.ReadRTCP(sender, func() *forward.DownTrack { return o.DownTrack }) })
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
	return sdp.InOrder(local), nil
}

// publish answers a publisher's offer. tell is told what happens to its media.
func publish(ctx context.Context, e *rtc.Engine, o *sdp.Offer, drops *forward.Drops, tell func(event.Event)) (*transport, []*forward.Track, string, error) {
	o = o.Again()
	media, err := rtc.NewMedia()
	if err != nil {
		return nil, nil, "", err
	}
	// One codec of each section, so that viewers can be answered before the first
	// packet comes.
	var (
		tracks   []*forward.Track
		sections []*sdp.Section // of each track
	)
	count := map[webrtc.RTPCodecType]int{}
	used := map[webrtc.PayloadType]string{}
	for _, section := range o.Sections {
		if !o.InUse(section) {
			continue
		}
		if !section.Sends {
			section.Why = "nothing is sent in it"
			continue
		}
		codec, ok := section.Preferred(used)
		if !ok {
			return nil, nil, "", section.NotTaken("taken is " + sdp.CodecNames(section.Kind))
		}
		sdp.Claim(used, &codec)
		if err := rtc.Register(media, codec); err != nil {
			return nil, nil, "", sdp.Error(err.Error())
		}
		o.Take(section, codec)
		track := &forward.Track{ID: fmt.Sprintf("%s%d", section.Kind, count[section.Kind]), Codec: rtc.CodecOf(codec.RTPCodecCapability)}
		if track.Sets = forward.ParseSprop(codec.Sprop); track.Sets != nil && sdp.FmtpValue(track.Codec.Fmtp, "profile-level-id") == "" {
			track.Codec.Fmtp = strings.TrimPrefix(track.Codec.Fmtp+";profile-level-id="+track.Sets.Profile(), ";")
		}
		count[section.Kind]++
		tracks, sections = append(tracks, track), append(sections, section)
	}
	if len(tracks) == 0 {
		return nil, nil, "", fmt.Errorf("%w: the offer must send at least one track of %s, %s", sdp.ErrNoCodec,
			sdp.CodecNames(webrtc.RTPCodecTypeAudio), sdp.CodecNames(webrtc.RTPCodecTypeVideo))
	}
	if err := o.Settle(); err != nil {
		return nil, nil, "", err
	}
	t := newTransport(o)
	t.in = rtc.NewIngress(drops, t.end, func(e event.Event) {
		if e.Kind == event.StreamStarted {
			e.Detail = contents(tracks)
		}
		tell(e)
	})
	if t.Transport, err = e.Publisher(media, t.in); err != nil {
		return nil, nil, "", err
	}
	t.watch()
	t.tracks = tracks
	for i, track := range tracks {
		t.in.Take(sections[i], track, t.RequestKeyframe)
	}
	answer, err := t.answer(ctx, o)
	if err != nil {
		t.Close()
		return nil, nil, "", err
	}
	t.in.Negotiated(t.PeerConnection)
	return t, tracks, o.AnswerText(answer), nil
}

// view answers the offer of a viewer of st. begun is told when the first packet
// of each kind goes out, with locks held.
func view(ctx context.Context, e *rtc.Engine, st *forward.Stream, o *sdp.Offer, begun func(forward.Kind, time.Time)) (*transport, string, error) {
	o = o.Again()
	media, err := rtc.NewMedia()
	if err != nil {
		return nil, "", err
	}
	// Each track goes into the first section that can take it. A section that
	// asks for media and gets none, although there is some of its kind left, is
	// one that the viewer would look at in vain.
	carries := map[*sdp.Section]*forward.Track{}
	used := map[webrtc.PayloadType]string{}
	var left []*forward.Track
	for _, t := range st.Tracks {
		into := slices.IndexFunc(o.Sections, func(section *sdp.Section) bool {
			if carries[section] != nil || !o.InUse(section) || !section.Receives || section.Kind != sdp.KindOf(t.Codec.MimeType) {
				return false
			}
			codec, ok := section.Match(rtc.CapabilityOf(t.Codec), used)
			if !ok {
				return false
			}
			sdp.Claim(used, &codec)
			o.Take(section, codec)
			carries[section] = t
			return true
		})
		if into < 0 {
			left = append(left, t)
		}
	}
	has := contents(st.Tracks)
	for _, section := range o.Sections {
		switch {
		case carries[section] != nil || !o.InUse(section):
		case !section.Receives:
			section.Why = "nothing is received in it"
		default:
			section.Why = "the stream has no further " + section.Media
			if !slices.ContainsFunc(st.Tracks, func(t *forward.Track) bool { return sdp.KindOf(t.Codec.MimeType) == section.Kind }) {
				section.Why = "the stream has no " + section.Media
			}
			if slices.ContainsFunc(left, func(t *forward.Track) bool { return sdp.KindOf(t.Codec.MimeType) == section.Kind }) {
				return nil, "", section.NotTaken("the stream has " + has + ": offer to receive that")
			}
		}
	}
	if len(o.Taken) == 0 {
		return nil, "", fmt.Errorf("%w: the stream has %s; offer to receive that", sdp.ErrNoCodec, has)
	}
	if err := o.Settle(); err != nil {
		return nil, "", err
	}
	for _, section := range o.Taken {
		if err := rtc.Register(media, *section.Codec); err != nil {
			return nil, "", sdp.Error(err.Error())
		}
	}
	t := newTransport(o)
	if t.Transport, err = e.Viewer(media); err != nil {
		return nil, "", err
	}
	t.watch()
	t.left = left
	for _, section := range o.Taken { // in order, so that pion puts each into its section
		track := carries[section]
		out := t.NewTrack(track, "weir")
		out.PayloadType = section.Codec.PT
		out.Begun = func(at time.Time) { begun(track.Codec.Kind(), at) }
		t.outs = append(t.outs, out)
	}
	answer, err := t.answer(ctx, o)
	if err != nil {
		t.Close()
		return nil, "", err
	}
	return t, o.AnswerText(answer), nil
}

// contents names the codecs of tracks for people.
func contents(tracks []*forward.Track) string {
	var has []string
	for _, t := range tracks {
		has = append(has, fmt.Sprintf("%s/%s", t.Codec.Kind(), sdp.Describe(rtc.CapabilityOf(t.Codec))))
	}
	return strings.Join(has, " and ")
}

// Connected is closed when media can flow.
func (t *transport) Connected() <-chan struct{} { return t.connected }

// Ended is told why the connection has ended, or has to.
func (t *transport) Ended() <-chan string { return t.ended }

// Knows reports whether ufrag is the client's, now or before.
func (t *transport) Knows(ufrag string) bool { return t.offer.Knows(ufrag) }

// Restart serves an ICE restart (RFC 9725, section 4.3.3): the client comes
// with new credentials and gets ours.
func (t *transport) Restart(ctx context.Context, ufrag, pwd string) (string, error) {
	offer := t.offer.Restarted(ufrag, pwd)
	answer, err := t.answer(ctx, offer)
	if err != nil {
		return "", err
	}
	t.offer, t.candidates = offer, nil
	return sdp.RestartFragment(answer), nil
}

// Add gives the client's candidates to its ICE agent, as many as one session may
// have. Those over the bound, and those that cannot be used, are no error: our
// side learns the client's address from its checks.
func (t *transport) Add(f *sdp.Fragment) {
	unused := maps.Clone(f.Skipped)
	for _, c := range f.Candidates {
		switch {
		case f.Ufrag != "" && f.Ufrag != t.offer.Ufrag:
			unused["of another transport"]++
		case slices.Contains(t.candidates, c) || slices.Contains(t.offer.Candidates, c):
		case len(t.candidates)+len(t.offer.Candidates) >= sdp.MaxCandidates:
			unused[sdp.OverBound]++
		default:
			t.candidates = append(t.candidates, c)
			if t.AddICECandidate(webrtc.ICECandidateInit{Candidate: "candidate:" + c.String()}) != nil {
				unused["malformed"]++
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for why, n := range unused {
		t.unused[why] += n
	}
}

// NotTaken lists the sections and tracks that there is no media for, and why.
func (t *transport) NotTaken() []string {
	all := t.offer.Refused()
	for _, track := range t.left {
		all = append(all, fmt.Sprintf("track %s (%s): not asked for", track.ID, sdp.Describe(rtc.CapabilityOf(track.Codec))))
	}
	return all
}

// Unused counts candidates that are not used, by why.
func (t *transport) Unused() map[string]int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.unused)
}

// State is that of the connection.
func (t *transport) State() string { return t.ConnectionState().String() }

// Video reports whether video is sent to the client.
func (t *transport) Video() bool {
	return slices.ContainsFunc(t.outs, func(o *rtc.LocalTrack) bool { return o.Track.Codec.Kind() == forward.Video })
}

// RTT is to a viewer, by its reports; 0: unknown.
func (t *transport) RTT() (rtt time.Duration) {
	for _, o := range t.outs {
		rtt = max(rtt, o.Sent().RTT)
	}
	return rtt
}

// Traffic is what has gone over it so far, in or out.
func (t *transport) Traffic() whip.Traffic {
	var all whip.Traffic
	for _, o := range t.outs {
		sent := o.Sent()
		all.Packets += sent.Packets
		all.Bytes += sent.Bytes
		all.Lost += sent.Lost
	}
	if t.in != nil {
		came := whip.Traffic(t.in.Came())
		all.Packets += came.Packets
		all.Bytes += came.Bytes
		all.Keyframes += came.Keyframes
		all.Lost += came.Lost
	}
	return all
}

// Quiet is how long a publisher has sent nothing, counted from since at the
// earliest.
func (t *transport) Quiet(now, since time.Time) time.Duration { return t.in.Silence(now, since) }

// Look makes events of sections that have begun to send nothing; since is when
// media could flow.
func (t *transport) Look(now, since time.Time) { t.in.Look(now, since) }

// Adopt has a publisher feed tracks from now on, of which nothing has come yet,
// if its own can go on as those: what viewers were answered holds for them.
func (t *transport) Adopt(tracks []*forward.Track) bool {
	if !slices.EqualFunc(tracks, t.tracks, func(a, b *forward.Track) bool {
		return a.ID == b.ID && sdp.Decodes(rtc.CapabilityOf(a.Codec), rtc.CapabilityOf(b.Codec), false) > 0
	}) {
		return false
	}
	t.in.Adopt(tracks)
	return true
}

// Sections are a publisher's.
func (t *transport) Sections(now time.Time) []sdp.SectionStatus { return t.in.Status(now) }

// NotForwarded counts a publisher's packets that were not, by reason.
func (t *transport) NotForwarded() map[string]int64 { return t.in.NotForwarded() }

// Stop ends media at once.
func (t *transport) Stop() {
	t.shut()
	for _, o := range t.outs {
		o.Track.Remove(o.DownTrack)
	}
	if t.in != nil {
		t.in.Close()
	}
}

// Close ends the connection and waits for all that runs.
func (t *transport) Close() {
	t.shut()
	_ = t.GracefulClose()
	t.wait()
}
