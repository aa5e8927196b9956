package rtc

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity/event"
	"weir/sfu/forward"
	"weir/sfu/paramsets"
	"weir/sfu/sdp"
)

// Publish answers a publisher's offer. It reports events of the publisher's
// media by tell, without session and stream. Packets that are not forwarded
// count in drops. The error is one of package sdp, or of pion.
func (e *Engine) Publish(ctx context.Context, o *sdp.Offer, drops *forward.Drops, tell func(event.Event)) (*Client, []*forward.Track, string, error) {
	o = o.Untaken()
	media, err := NewMedia()
	if err != nil {
		return nil, nil, "", err
	}
	// Take one codec of each section, so that viewers can be answered before
	// the first packet arrives.
	var (
		tracks   []*forward.Track
		sections []*sdp.Section // the section of each track
	)
	count := map[webrtc.RTPCodecType]int{}
	simulcast := false
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
		sdp.ClaimPayloadTypes(used, &codec)
		if err := Register(media, codec); err != nil {
			return nil, nil, "", sdp.Error(err.Error())
		}
		o.Take(section, codec)
		track := &forward.Track{ID: fmt.Sprintf("%s%d", section.Kind, count[section.Kind]), Codec: CodecOf(codec.RTPCodecCapability)}
		track.Sets = paramsets.Parse(codec.MimeType, codec.Sprop)
		if profile := track.Sets.Profile(); profile != "" && sdp.FmtpValue(track.Codec.Fmtp, "profile-level-id") == "" {
			track.Codec.Fmtp = strings.TrimPrefix(track.Codec.Fmtp+";profile-level-id="+profile, ";")
		}
		if section.Kind == webrtc.RTPCodecTypeVideo {
			section.Simulcast = section.Layers
			if len(section.Simulcast) > 0 {
				simulcast = true
			}
			if rids := layersOf(section); len(rids) > 1 {
				track.Simulcast(rids)
			}
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
	if simulcast {
		for _, uri := range []string{psdp.SDESRTPStreamIDURI, psdp.SDESRepairRTPStreamIDURI} {
			if err := media.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, webrtc.RTPCodecTypeVideo); err != nil {
				return nil, nil, "", err
			}
		}
	}
	t := newClient(o)
	t.in = NewIngress(drops, t.end, func(e event.Event) {
		if e.Kind == event.StreamStarted {
			e.Detail = contents(tracks)
		}
		tell(e)
	})
	if t.Transport, err = e.publisher(media, o.Passive(), t.in); err != nil {
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

// layersOf names the layers of simulcast in a section, the preferred first; those
// without RIDs by their place in the offer.
func layersOf(s *sdp.Section) []string {
	if len(s.Layers) > 0 {
		return s.Layers
	}
	var all []string
	for i := range slices.Backward(s.Sim) {
		all = append(all, strconv.Itoa(i))
	}
	return all
}

// View answers the offer of a viewer of st. It calls begun when the first
// packet of each kind is sent, with locks held.
func (e *Engine) View(ctx context.Context, st *forward.Stream, o *sdp.Offer, begun func(forward.Kind, time.Time)) (*Client, string, error) {
	o = o.Untaken()
	media, err := NewMedia()
	if err != nil {
		return nil, "", err
	}
	// Each track goes into the first section that accepts it. A section that
	// wants media and gets none, although tracks of its kind are left, is one
	// that the viewer would watch in vain.
	carries := map[*sdp.Section]*forward.Track{}
	used := map[webrtc.PayloadType]string{}
	var left []*forward.Track
	for _, t := range st.Tracks {
		into := slices.IndexFunc(o.Sections, func(section *sdp.Section) bool {
			if carries[section] != nil || !o.InUse(section) || !section.Receives || section.Kind != sdp.KindOf(t.Codec.MimeType) {
				return false
			}
			codec, ok := section.Match(CapabilityOf(t.Codec), used)
			if !ok {
				return false
			}
			sdp.ClaimPayloadTypes(used, &codec)
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
		if err := Register(media, *section.Codec); err != nil {
			return nil, "", sdp.Error(err.Error())
		}
	}
	t := newClient(o)
	if t.Transport, err = e.viewer(media, o.Passive()); err != nil {
		return nil, "", err
	}
	t.watch()
	t.left = left
	for _, section := range o.Taken { // in order, so that pion matches each with its section
		track := carries[section]
		out := t.NewTrack(track, "weir")
		out.Section = section.Index
		out.PayloadType, out.MID, out.Mixed = section.Codec.PT, section.MID, section.Mixed
		out.Begun = func(at time.Time) { begun(track.Codec.Kind(), at) }
		t.outs = append(t.outs, out)
	}
	t.steer()
	answer, err := t.answer(ctx, o)
	if err != nil {
		t.Close()
		return nil, "", err
	}
	return t, o.AnswerText(answer), nil
}

// contents lists the codecs of tracks for people.
func contents(tracks []*forward.Track) string {
	var has []string
	for _, t := range tracks {
		has = append(has, fmt.Sprintf("%s/%s", t.Codec.Kind(), sdp.Describe(CapabilityOf(t.Codec))))
	}
	return strings.Join(has, " and ")
}
