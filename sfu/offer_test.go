package sfu

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/rtp"
	psdp "github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
	"weir/sfu/cascade"
	"weir/sfu/forward"
	"weir/sfu/rtc"
	"weir/sfu/sdp"
	"weir/sfu/sdp/sdptest"
	"weir/sfu/udp"
)

// bundled is offer with a BUNDLE group of mids.
func bundled(offer, mids string) string {
	return strings.Replace(offer, "t=0 0\r\n", "t=0 0\r\na=group:BUNDLE "+mids+"\r\n", 1)
}

// lines are SDP lines with their ends.
func lines(of ...string) string { return strings.Join(of, "\r\n") + "\r\n" }

func audioOf(mid, direction, formats string, attributes ...string) string {
	s := lines("m=audio 9 UDP/TLS/RTP/SAVPF "+formats, "c=IN IP4 0.0.0.0", "a="+direction, "a=rtcp-mux")
	if mid != "" {
		s += "a=mid:" + mid + "\r\n"
	}
	return s + lines(attributes...)
}

func videoOf(mid, direction, formats string, attributes ...string) string {
	return strings.Replace(audioOf(mid, direction, formats, attributes...), "m=audio", "m=video", 1)
}

const dataSection = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:data\r\na=sctp-port:5000\r\n"

func h264Fmtp(pt int, profile, mode string) string {
	return fmt.Sprintf("a=fmtp:%d level-asymmetry-allowed=1;packetization-mode=%s;profile-level-id=%s", pt, mode, profile)
}

// Offers are answered so that media flows, or refused with the reason.
func TestOffers(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	a.publish("demo") // VP8 and Opus
	opus := "a=rtpmap:111 opus/48000/2"
	vp8 := lines("a=rtpmap:96 VP8/90000", "a=rtcp-fb:96 nack pli")
	vp8 = strings.TrimSuffix(vp8, "\r\n")
	sendAudio, sendVideo := audioOf("0", "sendonly", "111", opus), videoOf("1", "sendonly", "96", vp8)
	wantAudio, wantVideo := audioOf("0", "recvonly", "111", opus), videoOf("1", "recvonly", "96", vp8)
	both := bundled(sdptest.Offer(sendAudio, sendVideo), "0 1")
	candidates := ""
	for i := range 40 {
		candidates += fmt.Sprintf("a=candidate:%d 1 udp %d 10.9.0.%d 5000 typ host\r\na=candidate:%d 1 tcp %d 10.9.0.%d 9 typ host tcptype active\r\n", i, 1<<30-i, i+1, i+100, 1<<20-i, i+1)
	}
	sessionless := strings.NewReplacer("a=ice-ufrag:abcd\r\n", "", "a=ice-pwd:0123456789012345678901\r\n", "").Replace(both)

	for _, c := range []struct {
		name, path, offer string
		status            int
		has, hasNot       []string
	}{
		{"a lone section needs no group", "/whip/", sdptest.Offer(videoOf("video0", "sendonly", "96", vp8)), 201,
			[]string{"m=video 9 ", "a=mid:video0\r\n", "a=candidate:"}, []string{"a=group", "m=video 0"}},
		{"nor a mid", "/whip/", sdptest.Offer(videoOf("", "sendonly", "96", vp8)), 201, []string{"m=video 9 "}, []string{"a=mid", "a=group"}},
		{"two without a group", "/whip/", sdptest.Offer(sendAudio, sendVideo), 422, []string{"BUNDLE", "section 0 (audio, mid 0)", "section 1 (video, mid 1)"}, nil},
		{"two without a group, to view", "/whep/demo", sdptest.Offer(wantAudio, wantVideo), 422, []string{"BUNDLE"}, nil},
		{"one in the group, one not", "/whip/", bundled(sdptest.Offer(sendAudio, sendVideo), "0"), 422, []string{"BUNDLE"}, nil},
		{"two of which one is not in use", "/whip/", sdptest.Offer(strings.Replace(sendAudio, "m=audio 9", "m=audio 0", 1), sendVideo), 201,
			[]string{"m=audio 0 ", "a=mid:0\r\n", "m=video 9 "}, []string{"a=group"}},
		{"a group with mids that there are not", "/whip/", bundled(sdptest.Offer(sendAudio, sendVideo), "x 1 0 y"), 201, []string{"a=group:BUNDLE 1 0\r\n"}, nil},
		{"a data channel", "/whip/", bundled(sdptest.Offer(sendAudio, sendVideo, dataSection), "0 1 data"), 201,
			[]string{"a=group:BUNDLE 0 1\r\n", "m=application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n", "a=mid:data\r\n"}, nil},
		{"a data channel first, to view", "/whep/demo", bundled(sdptest.Offer(dataSection, wantAudio, wantVideo), "data 0 1"), 201,
			[]string{"a=group:BUNDLE 0 1\r\n", "m=application 0 ", "m=video 9 "}, nil},
		{"text beside audio", "/whip/", sdptest.Offer(sendAudio, lines("m=text 9 UDP/TLS/RTP/SAVPF 98", "a=rtpmap:98 t140/1000", "a=sendonly", "a=mid:2")), 201,
			[]string{"m=text 0 UDP/TLS/RTP/SAVPF 98"}, nil},
		{"a data channel alone", "/whip/", sdptest.Offer(dataSection), 400, []string{"only audio and video"}, nil},
		{"the first of a group, which is not wanted", "/whep/demo", bundled(sdptest.Offer(audioOf("a", "sendonly", "111", opus),
			strings.Replace(videoOf("v", "recvonly", "96", "a=bundle-only", "a=rtpmap:96 VP8/90000"), "m=video 9", "m=video 0", 1)), "a v"), 201,
			[]string{"a=group:BUNDLE a v\r\n", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "a=mid:a\r\na=inactive\r\n", "m=video 9 "}, []string{"m=audio 0"}},
		{"names in any case", "/whep/demo", bundled(sdptest.Offer(videoOf("video0", "recvonly", "96", "a=rtpmap:96 vp8/90000"),
			strings.Replace(audioOf("audio1", "recvonly", "97", "a=bundle-only", "a=rtpmap:97 OPUS/48000/2"), "m=audio 9", "m=audio 0", 1)), "video0 audio1"), 201,
			[]string{"m=audio 9 UDP/TLS/RTP/SAVPF 97", "a=rtpmap:97 OPUS/48000/2", "a=rtpmap:96 vp8/90000"}, nil},
		{"payload types of their own", "/whip/", bundled(sdptest.Offer(sendAudio, sendVideo, audioOf("2", "sendonly", "112", "a=rtpmap:112 opus/48000/2")), "0 1 2"), 201,
			[]string{"SAVPF 111\r\n", "SAVPF 112\r\n"}, nil},
		{"one payload type with two meanings", "/whip/", bundled(sdptest.Offer(sendVideo, audioOf("0", "sendonly", "96", "a=rtpmap:96 opus/48000/2")), "0 1"), 406,
			[]string{"section 1 (audio, mid 0)"}, nil},
		{"G.711 without a=rtpmap", "/whip/", sdptest.Offer(audioOf("0", "sendonly", "8 0")), 201, []string{"SAVPF 8\r\n", "a=rtpmap:8 PCMA/8000"}, nil},
		{"H264 and G.722", "/whip/", bundled(sdptest.Offer(videoOf("v", "sendonly", "102", "a=rtpmap:102 H264/90000", h264Fmtp(102, "640028", "1")),
			audioOf("a", "sendonly", "9", "a=rtpmap:9 G722/8000/1")), "v a"), 201, []string{"m=audio 9 UDP/TLS/RTP/SAVPF 9\r\n", "profile-level-id=640028"}, nil},
		{"a section that cannot be taken", "/whip/", bundled(sdptest.Offer(sendVideo, audioOf("7", "sendonly", "97", "a=rtpmap:97 MPEG4-GENERIC/48000/2")), "0 7"), 406,
			[]string{"section 1 (audio, mid 7) offers MPEG4-GENERIC", "opus, PCMU, PCMA, G722"}, nil},
		{"two videos, one that cannot be taken", "/whip/", bundled(sdptest.Offer(sendVideo, videoOf("2", "sendonly", "98", "a=rtpmap:98 H263/90000")), "1 2"), 406,
			[]string{"section 1 (video, mid 2) offers H263", "VP8, H264, VP9, AV1, H265"}, nil},
		{"no clock and no channels", "/whip/", bundled(sdptest.Offer(audioOf("0", "sendonly", "111", "a=rtpmap:111 opus/48000"), videoOf("1", "sendonly", "96", "a=rtpmap:96 AV1")), "0 1"), 201,
			[]string{"a=rtpmap:111 opus/48000\r\n", "a=rtpmap:96 AV1/90000"}, nil},
		{"another clock is another codec", "/whip/", sdptest.Offer(audioOf("0", "sendonly", "9", "a=rtpmap:9 G722/16000")), 406, []string{"offers G722"}, nil},
		{"stereo, to publish", "/whip/", sdptest.Offer(audioOf("0", "sendonly", "111", opus, "a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1")), 201, []string{"a=fmtp:111 minptime=10;stereo=1;sprop-stereo=1"}, nil},
		{"stereo, to view", "/whep/demo", sdptest.Offer(audioOf("0", "recvonly", "111", opus, "a=fmtp:111 stereo=1;useinbandfec=1")), 201, []string{"stereo=1"}, nil},
		{"no final newline", "/whip/", strings.TrimSuffix(both, "\r\n"), 201, []string{"m=audio 9", "m=video 9"}, nil},
		{"LF alone", "/whip/", strings.ReplaceAll(both, "\r\n", "\n"), 201, []string{"m=audio 9", "m=video 9"}, nil},
		{"blank lines and a byte order mark", "/whip/", "\xef\xbb\xbf\r\n\r\n" + both + "\r\n\n", 201, []string{"m=video 9"}, nil},
		{"other lines, other order", "/whip/", strings.NewReplacer("t=0 0\r\n", "b=AS:900\r\ni=a title\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nx=unknown\r\nk=clear:x\r\n", "a=rtcp-mux\r\n", "a=rtcp-mux\r\nk=clear:y\r\nb=TIAS:1000\r\ni=camera\r\n").Replace(both), 201, []string{"m=video 9"}, nil},
		{"attributes in capitals", "/whip/", strings.NewReplacer("a=setup:actpass", "a=SETUP:PASSIVE", "a=fingerprint:sha-256", "a=fingerprint:SHA-256", "a=sendonly", "a=SendOnly").Replace(both), 201, []string{"a=setup:active", "m=video 9"}, nil},
		{"setup:active", "/whip/", strings.Replace(both, "actpass", "active", 1), 201, []string{"a=setup:passive"}, nil},
		{"a very long line", "/whip/", both + "a=x-" + strings.Repeat("y", 40_000) + "\r\n", 201, []string{"m=video 9"}, []string{"yyy"}},
		{"nothing is sent in one section", "/whip/", bundled(sdptest.Offer(sendVideo, audioOf("0", "inactive", "111", opus)), "1 0"), 201, []string{"m=audio 0 ", "m=video 9"}, nil},
		{"another protocol name", "/whip/", strings.ReplaceAll(both, "UDP/TLS/RTP/SAVPF", "RTP/SAVPF"), 201, []string{"m=video 9 RTP/SAVPF 96"}, nil},
		{"more candidates than are used", "/whip/", both + candidates, 201, []string{"m=video 9"}, nil},
		{"no credentials", "/whip/", sessionless, 400, []string{"no a=ice-ufrag"}, nil},
		{"the same mid twice", "/whip/", strings.ReplaceAll(both, "a=mid:1", "a=mid:0"), 400, []string{"a=mid of its own"}, nil},
		{"an ICE-lite client", "/whip/", strings.Replace(both, "t=0 0\r\n", "t=0 0\r\na=ice-lite\r\n", 1), 422, []string{"ICE-lite"}, nil},
		{"a fingerprint that is none", "/whip/", strings.Replace(both, "a=fingerprint:sha-256 00", "a=fingerprint:sha-256 0", 1), 400, []string{"a=fingerprint"}, nil},
		{"sections that begin with CR", "/whip/", both + strings.Repeat("\rm=video 9 RTP/SAVPF 96", 800), 400, []string{"802 media sections, at most 8"}, nil},
		{"formats without end", "/whip/", sdptest.Offer(videoOf("1", "sendonly", strings.Repeat("96 ", 200)+"96", vp8)), 400, []string{"201 formats, at most 128"}, nil},
		{"lines without end", "/whip/", both + strings.Repeat("a=x\r\n", sdp.MaxLines), 400, []string{"more than 4096 lines"}, nil},
		{"audio alone of audio and video", "/whep/demo", sdptest.Offer(wantAudio), 201, []string{"m=audio 9"}, nil},
		{"video that the stream has not, audio that it has", "/whep/demo", bundled(sdptest.Offer(wantAudio, videoOf("1", "recvonly", "96", "a=rtpmap:96 H264/90000", h264Fmtp(96, "42e01f", "1"))), "0 1"), 406,
			[]string{"section 1 (video, mid 1) offers H264", "the stream has video/VP8 and audio/opus: offer to receive that"}, nil},
		{"more sections than the stream has tracks", "/whep/demo", bundled(sdptest.Offer(wantAudio, wantVideo, videoOf("2", "recvonly", "96", vp8)), "0 1 2"), 201,
			[]string{"m=video 9 ", "m=video 0 ", "a=group:BUNDLE 0 1\r\n"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := c.path
			if path == "/whip/" {
				path += "x" + fmt.Sprint(time.Now().UnixNano())
			}
			resp, body := call(t, "POST", a.web.URL+path, "application/sdp", c.offer)
			if resp.StatusCode != c.status {
				t.Fatalf("%s: %s", resp.Status, body)
			}
			for _, want := range c.has {
				if !strings.Contains(body, want) {
					t.Errorf("no %q in:\n%s", want, body)
				}
			}
			for _, not := range c.hasNot {
				if strings.Contains(body, not) {
					t.Errorf("%q in:\n%s", not, body)
				}
			}
			if resp.StatusCode != http.StatusCreated {
				return
			}
			// As many sections as offered, in the same order, each with formats
			// that were offered in it.
			var answer psdp.SessionDescription
			if err := answer.UnmarshalString(body); err != nil {
				t.Fatalf("the answer: %v\n%s", err, body)
			}
			parsed, err := sdp.ParseDescription([]byte(c.offer), sdp.Limits{Bytes: sdp.MaxBytes, Sections: sdp.MaxSections, Lines: sdp.MaxLines})
			if err != nil {
				t.Fatal(err)
			}
			if len(answer.MediaDescriptions) != len(parsed.Sections) {
				t.Fatalf("%d sections are answered, %d were offered", len(answer.MediaDescriptions), len(parsed.Sections))
			}
			for i, s := range parsed.Sections {
				got := answer.MediaDescriptions[i].MediaName
				if got.Media != s.Media || strings.Join(got.Protos, "/") != s.Proto {
					t.Errorf("section %d is answered as %s over %v", i, got.Media, got.Protos)
				}
				if got.Port.Value == 0 {
					continue
				}
				for _, f := range got.Formats {
					if !strings.Contains(" "+strings.Join(s.Formats, " ")+" ", " "+f+" ") {
						t.Errorf("section %d is answered with format %s, which was not offered in it", i, f)
					}
				}
			}
			if _, said := call(t, "DELETE", resp.Header.Get("Location"), "", ""); said != "" {
				t.Errorf("DELETE: %s", said)
			}
		})
	}
}

// Offers of real clients are accepted whole, except for data channels.
func TestOffersOfClients(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	a.publish("vp8")
	publishRaw(t, a, "h264", nil, param(webrtc.MimeTypeH264, 102, "packetization-mode=1;profile-level-id=42e01f"), param(webrtc.MimeTypeOpus, 111, ""))
	files, err := filepath.Glob("sdp/testdata/*.sdp")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		url := a.web.URL + "/whip/" + strings.TrimSuffix(filepath.Base(file), ".sdp")
		if strings.Contains(file, "whep") {
			url = a.web.URL + "/whep/vp8"
			if strings.Contains(file, "gstreamer") {
				url = a.web.URL + "/whep/h264"
			}
		}
		resp, answer := call(t, "POST", url, "application/sdp", string(raw))
		if resp.StatusCode != 201 {
			t.Errorf("%s: %s %s", file, resp.Status, answer)
			continue
		}
		for _, kind := range []string{"audio", "video"} {
			if strings.Contains(answer, "m="+kind+" 0 ") || strings.Count(answer, "m="+kind+" ") != strings.Count(string(raw), "m="+kind+" ") {
				t.Errorf("%s: not all of its %s is taken:\n%s", file, kind, answer)
			}
		}
		call(t, "DELETE", resp.Header.Get("Location"), "", "")
	}
}

// A raw is a track on which a test writes any RTP packet.
type raw struct {
	id, mime string
	pt       webrtc.PayloadType

	mu sync.Mutex
	w  webrtc.TrackLocalWriter
	h  rtp.Header
}

func (r *raw) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	for _, p := range c.CodecParameters() {
		if strings.EqualFold(p.MimeType, r.mime) && p.PayloadType == r.pt {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.w, r.h = c.WriteStream(), rtp.Header{Version: 2, SSRC: uint32(c.SSRC()), PayloadType: uint8(r.pt), SequenceNumber: 100}
			return p, nil
		}
	}
	return webrtc.RTPCodecParameters{}, webrtc.ErrUnsupportedCodec
}

func (r *raw) Unbind(webrtc.TrackLocalContext) error { return nil }
func (r *raw) ID() string                            { return r.id }
func (r *raw) RID() string                           { return "" }
func (r *raw) StreamID() string                      { return "raw" }
func (r *raw) Kind() webrtc.RTPCodecType             { return sdp.KindOf(r.mime) }

// send sends one packet, ticks of the clock after the last one.
func (r *raw) send(payload []byte, marker bool, ticks uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.w == nil {
		return
	}
	r.h.SequenceNumber++
	r.h.Timestamp += ticks
	r.h.Marker = marker
	_, _ = r.w.WriteRTP(&r.h, payload)
}

// plainPeer is a plain pion connection with codecs and nothing else.
func plainPeer(t *testing.T, codecs ...webrtc.RTPCodecParameters) *webrtc.PeerConnection {
	t.Helper()
	media := &webrtc.MediaEngine{}
	for _, c := range codecs {
		if err := media.RegisterCodec(c, sdp.KindOf(c.MimeType)); err != nil {
			t.Fatal(err)
		}
	}
	var s webrtc.SettingEngine
	s.SetIncludeLoopbackCandidate(true)
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	pc, err := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(media)).NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.GracefulClose() })
	return pc
}

// dialPeer offers pc to url, the offer changed by munge unless that is nil, and
// waits until media can flow.
func dialPeer(t *testing.T, pc *webrtc.PeerConnection, url string, munge func(string) string) string {
	t.Helper()
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		t.Fatal(err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(offer); err != nil {
		t.Fatal(err)
	}
	<-gathered
	text := pc.LocalDescription().SDP
	if munge != nil {
		text = munge(text)
	}
	resp, answer := call(t, "POST", url, "application/sdp", text)
	if resp.StatusCode != 201 {
		t.Fatalf("%s: %s\n%s", resp.Status, answer, text)
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer}); err != nil {
		t.Fatalf("%v\n%s", err, answer)
	}
	eventually(t, "connected", func() bool { return pc.ConnectionState() == webrtc.PeerConnectionStateConnected })
	return answer
}

func param(mime string, pt webrtc.PayloadType, fmtp string) webrtc.RTPCodecParameters {
	p := webrtc.RTPCodecParameters{PayloadType: pt}
	for _, c := range sdp.LinkCodecs() {
		if c.MimeType == mime {
			p.RTPCodecCapability = c.RTPCodecCapability
		}
	}
	p.SDPFmtpLine = fmtp
	if p.Channels == 1 {
		p.Channels = 0
	}
	if sdp.KindOf(mime) == webrtc.RTPCodecTypeVideo {
		p.RTCPFeedback = []webrtc.RTCPFeedback{{Type: "nack", Parameter: "pli"}}
	}
	return p
}

// publishRaw publishes one track for each of codecs at n until the test ends,
// and returns them. A track's packets carry its number.
func publishRaw(t *testing.T, n *meshNode, stream string, munge func(string) string, codecs ...webrtc.RTPCodecParameters) []*raw {
	t.Helper()
	pc := plainPeer(t, codecs...)
	var tracks []*raw
	for i, c := range codecs {
		r := &raw{id: fmt.Sprint("t", i), mime: c.MimeType, pt: c.PayloadType}
		tr, err := pc.AddTransceiverFromTrack(r, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.SetCodecPreferences([]webrtc.RTPCodecParameters{c}); err != nil {
			t.Fatal(err)
		}
		tracks = append(tracks, r)
	}
	dialPeer(t, pc, n.web.URL+"/whip/"+stream, munge)
	return tracks
}

// every sends by send each 10 ms until the test ends.
func every(t *testing.T, send func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-done
	})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				send()
			case <-stop:
				return
			}
		}
	}()
}

// G.711, G.722 and a second Opus under a payload type of its own reach a viewer
// at another node, each in its section.
func TestAudioOfEveryKindIsForwarded(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	codecs := []webrtc.RTPCodecParameters{
		param(webrtc.MimeTypeOpus, 111, ""), param(webrtc.MimeTypePCMU, 0, ""), param(webrtc.MimeTypePCMA, 8, ""),
		param(webrtc.MimeTypeG722, 9, ""), param(webrtc.MimeTypeOpus, 112, ""),
	}
	tracks := publishRaw(t, a, "audio", func(sdp string) string {
		return strings.ReplaceAll(sdp, "a=rtpmap:8 PCMA/8000\r\n", "") // static: RFC 3551
	}, codecs...)
	every(t, func() {
		for i, r := range tracks {
			r.send([]byte{byte(i), 1, 2, 3}, false, 160)
		}
	})

	pc := plainPeer(t, codecs...)
	var mu sync.Mutex
	got := map[string]map[byte]int{} // packets by payload type, by track number
	done := make(chan struct{}, len(codecs))
	pc.OnTrack(func(r *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		defer func() { done <- struct{}{} }()
		for {
			p, _, err := r.ReadRTP()
			if err != nil {
				return
			}
			mu.Lock()
			key := fmt.Sprint(p.PayloadType)
			if got[key] == nil {
				got[key] = map[byte]int{}
			}
			if len(p.Payload) > 0 {
				got[key][p.Payload[0]]++
			}
			mu.Unlock()
		}
	})
	for _, c := range codecs {
		tr, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeAudio, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
		if err != nil {
			t.Fatal(err)
		}
		if err := tr.SetCodecPreferences([]webrtc.RTPCodecParameters{c}); err != nil {
			t.Fatal(err)
		}
	}
	dialPeer(t, pc, b.web.URL+"/whep/audio", nil)
	eventually(t, "packets of five tracks", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for i, c := range codecs {
			if got[fmt.Sprint(c.PayloadType)][byte(i)] < 10 {
				return false
			}
		}
		return true
	})
	mu.Lock()
	defer mu.Unlock()
	for pt, by := range got {
		if len(by) != 1 {
			t.Errorf("payload type %s carries tracks %v", pt, by)
		}
	}

	// weir's own viewer receives them, too.
	v := a.tryWatch("audio")
	eventually(t, "packets at weir's viewer", func() bool { return v.Stats().Packets > 10 })
}

// Unaccepted parts of an offer are reported: to the operator in the session and
// the event, to the client by the status.
func TestWhatIsNotTakenIsTold(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	opus := "a=rtpmap:111 opus/48000/2"
	_, _ = call(t, "POST", a.web.URL+"/whip/x", "application/sdp", bundled(sdptest.Offer(audioOf("0", "sendonly", "111", opus), dataSection), "0 data")+"a=candidate:1 1 tcp 5 10.0.0.1 9 typ host tcptype active\r\n")
	sessions := a.Clients().Sessions()
	if len(sessions) != 1 || len(sessions[0].NotTaken) != 1 || !strings.Contains(sessions[0].NotTaken[0], "section 1 (application, mid data)") {
		t.Fatalf("sessions = %+v", sessions)
	}
	resp, body := call(t, "POST", a.web.URL+"/whip/y", "application/sdp", sdptest.Offer(audioOf("0", "sendonly", "97", "a=rtpmap:97 AMR-WB/16000")))
	var problem struct{ Code, Detail string }
	if err := json.Unmarshal([]byte(body), &problem); err != nil || resp.StatusCode != 406 || problem.Code != "no-common-codec" {
		t.Errorf("%s: %s (%v)", resp.Status, body, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	var opened, refused bool
	for _, e := range a.events {
		opened = opened || e.Kind == "session.opened" && strings.Contains(e.Detail, "application")
		refused = refused || e.Kind == "refused" && e.Reason == "no-common-codec" && strings.Contains(e.Detail, "AMR-WB")
	}
	if !opened || !refused {
		t.Errorf("events = %+v", a.events)
	}
}

// A viewer that cannot decode the stream gets an error, and one that can is not
// refused: browsers' own offers against streams of publishers.
func TestViewersOfH264(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	for _, profile := range []string{"42e01f", "4d0028", "640028"} {
		publishRaw(t, a, profile, nil, param(webrtc.MimeTypeH264, 102, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id="+profile))
	}
	browser := func(name string) string {
		raw, err := os.ReadFile(filepath.Join("sdp", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	// This browser had no H264 decoder; one that has offers these two more.
	firefox := strings.NewReplacer("SAVPF 120 ", "SAVPF 126 97 120 ", "a=rtpmap:120 ", lines("a=rtpmap:126 H264/90000", "a=fmtp:126 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1",
		"a=rtpmap:97 H264/90000", "a=fmtp:97 profile-level-id=42e01f;level-asymmetry-allowed=1")+"a=rtpmap:120 ").Replace(browser("firefox-whep.sdp"))
	view := func(fmtps ...string) string {
		formats, attributes := "", []string{}
		for i, f := range fmtps {
			formats += fmt.Sprintf("%d ", 100+i)
			attributes = append(attributes, fmt.Sprintf("a=rtpmap:%d H264/90000", 100+i), fmt.Sprintf("a=fmtp:%d %s", 100+i, f))
		}
		return sdptest.Offer(videoOf("0", "recvonly", strings.TrimSpace(formats), attributes...))
	}
	const constrained = "packetization-mode=1;profile-level-id=42e01f"
	for _, c := range []struct {
		viewer, offer, stream string
		status                int
	}{
		{"Chromium", browser("chromium-whep.sdp"), "42e01f", 201},
		{"Chromium", browser("chromium-whep.sdp"), "4d0028", 201},
		{"Chromium", browser("chromium-whep.sdp"), "640028", 201},
		{"Firefox", firefox, "42e01f", 201},
		{"Firefox", firefox, "4d0028", 201},
		{"Firefox", firefox, "640028", 201},
		{"one of constrained Baseline", view(constrained), "42e01f", 201},
		{"one of constrained Baseline", view(constrained), "640028", 406},
		{"one that names no profile, as GStreamer", view("packetization-mode=1"), "640028", 201},
		{"one of High", view("packetization-mode=1;profile-level-id=640c1f"), "4d0028", 201},
		{"one of mode 0", view("profile-level-id=42e01f"), "42e01f", 406},
	} {
		resp, body := call(t, "POST", a.web.URL+"/whep/"+c.stream, "application/sdp", c.offer)
		if resp.StatusCode != c.status {
			t.Errorf("%s, a stream of %s: %s: %s", c.viewer, c.stream, resp.Status, body)
		}
		if c.status == 406 && !strings.Contains(body, "profile-level-id="+c.stream) {
			t.Errorf("%s, a stream of %s is not told what there is: %s", c.viewer, c.stream, body)
		}
	}
}

// Parameter sets that stand only in the offer reach a viewer, also at another
// node, as packets before each keyframe, and the numbering has no gap.
func TestParameterSetsOfTheOffer(t *testing.T) {
	t.Parallel()
	m := newMesh(t)
	a, b := m.add(ledger.Limits{}, nil), m.add(ledger.Limits{}, nil)
	codec := param(webrtc.MimeTypeH264, 102, "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f")
	tracks := publishRaw(t, a, "sets", func(sdp string) string {
		return strings.Replace(sdp, "a=fmtp:102 ", "a=fmtp:102 sprop-parameter-sets=Z0LgH9oBQBbsQA==,aM48gA==;", 1)
	}, codec)
	n := 0
	every(t, func() {
		slice := []byte{0x61, 0x88, 0x84}
		if n++; n%10 == 1 {
			slice = []byte{0x65, 0x88, 0x84}
		}
		tracks[0].send(slice, true, 900)
	})
	pc := plainPeer(t, codec)
	if _, err := pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
		t.Fatal(err)
	}
	packets := make(chan *rtp.Packet, 1000)
	pc.OnTrack(func(r *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		defer close(packets)
		for {
			p, _, err := r.ReadRTP()
			if err != nil {
				return
			}
			select {
			case packets <- p:
			default:
			}
		}
	})
	answer := dialPeer(t, pc, b.web.URL+"/whep/sets", nil)
	if strings.Contains(answer, "sprop") {
		t.Errorf("parameter sets are in the answer:\n%s", answer)
	}
	var types []byte
	var last *rtp.Packet
	keyframes := 0
	for len(types) < 40 {
		var p *rtp.Packet
		select {
		case p = <-packets:
		case <-time.After(patience):
			t.Fatalf("after %v, nothing more comes", types)
		}
		if p == nil {
			t.Fatal("the track has ended")
		}
		if last != nil && p.SequenceNumber != last.SequenceNumber+1 {
			t.Errorf("packet %d after %d", p.SequenceNumber, last.SequenceNumber)
		}
		types = append(types, p.Payload[0]&0x1f)
		// What comes before the viewer's handshake has ended is lost: the first
		// keyframe may be cut.
		if n := len(types); types[n-1] == 5 && n >= 3 {
			keyframes++
			if types[n-2] != 8 || types[n-3] != 7 || p.Timestamp != last.Timestamp {
				t.Errorf("a keyframe comes without its parameter sets: %v", types)
			}
		}
		last = p
	}
	if keyframes < 2 {
		t.Errorf("%d keyframes in %v", keyframes, types)
	}
}

// Trickled candidates beyond the bound are no error, since clients give up at
// one. They are counted.
func TestTrickledCandidatesAreBounded(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	resp, body := call(t, "POST", a.web.URL+"/whip/x", "application/sdp", sdptest.Offer(audioOf("0", "sendonly", "0")))
	if resp.StatusCode != 201 {
		t.Fatal(body)
	}
	for n := range 40 {
		fragment := lines("a=ice-ufrag:abcd", "m=audio 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0",
			fmt.Sprintf("a=candidate:%d 1 UDP %d 10.9.0.%d 5000 typ host", n, 1<<30-n, n+1),
			fmt.Sprintf("a=candidate:%d 1 udp 4 %d.local 5 typ host", n, n))
		if resp, body := call(t, "PATCH", resp.Header.Get("Location"), "application/trickle-ice-sdpfrag", fragment); resp.StatusCode != 204 {
			t.Fatalf("candidate %d: %s %s", n, resp.Status, body)
		}
	}
	if resp, body := call(t, "PATCH", resp.Header.Get("Location"), "application/trickle-ice-sdpfrag", "a=ice-ufrag:other\r\na=candidate:1 1 UDP 4 10.8.0.1 5 typ host\r\n"); resp.StatusCode != 400 {
		t.Errorf("a restart without a password: %s %s", resp.Status, body)
	}
	got := a.Clients().Sessions()[0].CandidatesUnused
	if got[sdp.TooMany] != 40-sdp.MaxCandidates || got["a name"] != 40 {
		t.Errorf("unused: %v", got)
	}
}

// Before the answer, a client that bundles may have a transport for each
// section, and trickle for all of them: that is no restart.
func TestTransportsThatWereBundled(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	own := func(name string) string {
		return lines("a=ice-ufrag:"+name, "a=ice-pwd:0123456789012345678901", "a=rtpmap:111 opus/48000/2")
	}
	offer := bundled(sdptest.Offer(audioOf("0", "sendonly", "111", own("first")), audioOf("1", "sendonly", "111", own("second"))), "1 0")
	resp, body := call(t, "POST", a.web.URL+"/whip/x", "application/sdp", offer)
	if resp.StatusCode != 201 || !strings.Contains(body, "a=group:BUNDLE 1 0") {
		t.Fatal(body)
	}
	for _, ufrag := range []string{"first", "second"} {
		fragment := lines("a=ice-ufrag:"+ufrag, "a=ice-pwd:0123456789012345678901", "a=candidate:1 1 UDP 4 10.8.0.1 5 typ host")
		if resp, body := call(t, "PATCH", resp.Header.Get("Location"), "application/trickle-ice-sdpfrag", fragment); resp.StatusCode != 204 {
			t.Errorf("%s: %s %s", ufrag, resp.Status, body)
		}
	}
	if got := a.Clients().Sessions()[0].CandidatesUnused; got["of another transport"] != 1 {
		t.Errorf("unused: %v", got)
	}
}

// dearOffers are the most expensive known offers within the bounds.
func dearOffers() map[string]string {
	section := func(kind string, i int) string {
		s := fmt.Sprintf("m=%s 9 UDP/TLS/RTP/SAVPF", kind)
		for pt := range sdp.MaxFormats {
			s += fmt.Sprint(" ", pt)
		}
		return s + fmt.Sprintf("\r\na=mid:%d\r\na=sendonly\r\n", i)
	}
	fill := func(head string, more func(int) string) string {
		var b strings.Builder
		b.WriteString(head)
		for n := strings.Count(head, "\n"); n < sdp.MaxLines; n++ {
			next := more(n)
			if b.Len()+len(next) > sdp.MaxBytes {
				break
			}
			b.WriteString(next)
		}
		return b.String()
	}
	all, mids := "", ""
	for i := range sdp.MaxSections {
		mids += fmt.Sprint(" ", i)
		all += section([]string{"audio", "video"}[i%2], i)
		for pt := range sdp.MaxFormats {
			all += fmt.Sprintf("a=rtpmap:%d %s\r\n", pt, []string{"opus/48000/2", "VP8/90000"}[i%2])
		}
	}
	one := sdptest.Offer(section("video", 0) + "a=rtpmap:96 VP8/90000\r\n")
	return map[string]string{
		"sections": bundled(sdptest.Offer(all), mids[1:]),
		"rtpmaps":  fill(one, func(n int) string { return fmt.Sprintf("a=rtpmap:%d VP8/90000\r\n", n%128) }),
		"candidates": fill(one, func(n int) string {
			return fmt.Sprintf("a=candidate:%d 1 udp 1 10.0.%d.%d 9 typ host\r\n", n, n/256, n%256)
		}),
		"fmtps": fill(one, func(n int) string { return fmt.Sprintf("a=fmtp:%d a=1;b=2\r\n", n%128) }),
		"ssrcs": fill(one, func(n int) string { return fmt.Sprintf("a=ssrc-group:FID %d %d\r\n", n, n+1) }),
		"group": strings.Replace(bundled(sdptest.Offer(all), mids[1:]), "BUNDLE", "BUNDLE"+strings.Repeat(" x", 5000), 1),
	}
}

// answerOnce sets a publisher up for an offer and takes it down again. It
// returns the time from the body to the answer.
func answerOnce(t testing.TB, s *SFU, body string) time.Duration {
	t.Helper()
	began := time.Now()
	o, err := sdp.ParseOffer([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	sess, _, _, err := s.engine.Publish(t.Context(), o, &s.drops, func(Event) {})
	took := time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	sess.Close()
	return took
}

// bareSFU is an SFU without a network.
func bareSFU(t testing.TB) *SFU {
	t.Helper()
	socket, err := udp.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Socket: socket, Ledger: ledger.New("", ledger.Limits{})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// An offer costs no more for its padding. The benchmark measures absolute
// figures; here offers are compared with a browser's, which the machine's load
// slows down too.
func TestDearOffersAreCheap(t *testing.T) {
	s := bareSFU(t)
	raw, err := os.ReadFile("sdp/testdata/chromium-whip.sdp")
	if err != nil {
		t.Fatal(err)
	}
	least := func(body string) time.Duration {
		best := time.Hour
		for range 5 {
			best = min(best, answerOnce(t, s, body))
		}
		return best
	}
	plain := least(string(raw))
	for name, body := range dearOffers() {
		if len(body) > sdp.MaxBytes {
			t.Fatalf("%s: %d bytes", name, len(body))
		}
		if took := least(body); took > 20*plain {
			t.Errorf("%s: %v, a browser's takes %v", name, took, plain)
		}
	}
}

// For any offer, to publish or to view: pion gets only the accepted part,
// within bounds, and never panics; the answer has the sections of the offer.
func FuzzOffer(f *testing.F) {
	sdptest.Corpus(f, "sdp/testdata")
	for _, body := range dearOffers() {
		f.Add([]byte(body))
	}
	f.Add([]byte(bundled(sdptest.Offer(audioOf("0", "sendrecv", "0 8 9 111", "a=rtpmap:111 OPUS/48000/2"), sdptest.Video("1", "sendrecv"), dataSection), "1 0 data")))
	f.Add([]byte(sdptest.Offer(videoOf("", "recvonly", "96", "a=rtpmap:96 AV1", "a=fmtp:96 profile=1", "a=ssrc-group:FID 1 2", "a=ssrc:1", "a=ssrc:2", "a=msid:- x", "a=extmap:3/sendonly "+sdp.Orientation))))
	s := bareSFU(f)
	var all []*forward.Track
	for i, c := range sdp.LinkCodecs() {
		all = append(all, &forward.Track{ID: fmt.Sprint(i), Codec: forward.Codec{MimeType: c.MimeType, ClockRate: c.ClockRate, Channels: c.Channels, Fmtp: c.SDPFmtpLine}})
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := sdp.ParseOffer(body)
		if err != nil {
			return
		}
		for _, set := range []func() (*rtc.Client, string, error){
			func() (*rtc.Client, string, error) {
				p, _, answer, err := s.engine.Publish(t.Context(), o, &s.drops, func(Event) {})
				return p, answer, err
			},
			func() (*rtc.Client, string, error) {
				return s.engine.View(t.Context(), forward.NewStream("x", all, time.Now()), o, func(forward.Kind, time.Time) {})
			},
		} {
			sess, answer, err := set()
			if err != nil {
				var known bool
				for _, as := range []any{new(sdp.Error), new(sdp.Unacceptable)} {
					known = known || errors.As(err, as)
				}
				if strings.Contains(err.Error(), "pion") || !known && !errors.Is(err, sdp.ErrNoCodec) {
					t.Errorf("%v", err)
				}
				continue
			}
			checkTaken(t, sess.Offer)
			if parsed, err := sdp.ParseDescription([]byte(answer), sdp.Limits{Bytes: 8 * sdp.MaxBytes, Sections: sdp.MaxSections, Lines: sdp.MaxLines}); err != nil || len(parsed.Sections) != len(o.Sections) {
				t.Errorf("not the sections of the offer (%v)\n%s", err, answer)
			}
			sess.Close()
		}
	})
}

// checkTaken checks the text of o for pion.
func checkTaken(t *testing.T, o *sdp.Offer) {
	t.Helper()
	var given psdp.SessionDescription
	if err := given.UnmarshalString(o.Text()); err != nil {
		t.Fatalf("pion does not read what it is given: %v\n%s", err, o.Text())
	}
	if len(given.MediaDescriptions) != len(o.Taken) || len(o.Taken) == 0 || len(o.Taken) > sdp.MaxSections {
		t.Fatalf("%d sections are given, %d taken", len(given.MediaDescriptions), len(o.Taken))
	}
	candidates := 0
	for i, s := range o.Taken {
		m := given.MediaDescriptions[i]
		if mid, _ := m.Attribute("mid"); mid != s.PionMID() || m.MediaName.Media != s.Media || len(m.MediaName.Formats) > 2 || m.MediaName.Formats[0] != fmt.Sprint(s.Codec.PT) {
			t.Errorf("section %d is given as %s %v, mid %q", i, m.MediaName.Media, m.MediaName.Formats, mid)
		}
		if len(m.Attributes) > 80 {
			t.Errorf("%d attributes in section %d", len(m.Attributes), i)
		}
		for _, a := range m.Attributes {
			if a.Key == "candidate" {
				candidates++
			}
		}
	}
	if candidates > sdp.MaxCandidates {
		t.Errorf("%d candidates are given", candidates)
	}
}

// Another node is a member of the network, and may still be faulty.
func FuzzLinkDescription(f *testing.F) {
	sdptest.Corpus(f, "sdp/testdata")
	s := bareSFU(f)
	media, err := rtc.LinkMedia()
	if err != nil {
		f.Fatal(err)
	}
	pc, err := s.engine.Link(media)
	if err != nil {
		f.Fatal(err)
	}
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
			f.Fatal(err)
		}
	}
	offer, err := pc.CreateOffer(nil)
	if err != nil {
		f.Fatal(err)
	}
	if err := pc.GracefulClose(); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(offer.SDP))
	f.Add([]byte(dearLinkDescription()))
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := sdp.LinkText(string(body), cascade.Limits)
		if err != nil {
			return
		}
		var parsed psdp.SessionDescription
		if err := parsed.UnmarshalString(text); err != nil {
			t.Fatalf("pion does not read what it is given: %v\n%s", err, text)
		}
		if n := len(parsed.MediaDescriptions); n == 0 || n > 2*cascade.MaxSlots {
			t.Errorf("%d sections", n)
		}
		for _, m := range parsed.MediaDescriptions {
			if n := len(m.MediaName.Formats); n > 2*len(sdp.LinkCodecs()) {
				t.Errorf("%d formats in a section", n)
			}
		}
		media, err := rtc.LinkMedia()
		if err != nil {
			t.Fatal(err)
		}
		pc, err := s.engine.Link(media)
		if err != nil {
			t.Fatal(err)
		}
		_ = pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: text})
		if err := pc.GracefulClose(); err != nil {
			t.Error(err)
		}
	})
}

// The target is 50 ms for each of them.
func BenchmarkDearOffers(b *testing.B) {
	for name, body := range dearOffers() {
		b.Run(name, func(b *testing.B) {
			s := bareSFU(b)
			for b.Loop() {
				answerOnce(b, s, body)
			}
		})
	}
}

// dearLinkDescription is a cascade link's offer of as many sections as it may
// have, stuffed with formats.
func dearLinkDescription() string {
	mids, sections := "", ""
	for i := range 2 * cascade.MaxSlots {
		mids += fmt.Sprint(" ", i)
		s := "m=video 9 UDP/TLS/RTP/SAVPF"
		for pt := range sdp.MaxLinkFormats {
			s += fmt.Sprint(" ", 96+pt)
		}
		s += fmt.Sprintf("\r\nc=IN IP4 0.0.0.0\r\na=mid:%d\r\na=sendrecv\r\na=ssrc:%d\r\n", i, i+1)
		for pt := range sdp.MaxLinkFormats {
			s += fmt.Sprintf("a=rtpmap:%d %s/90000\r\n", 96+pt, []string{"VP8", "H264", "VP9", "AV1"}[pt%4])
		}
		s += "a=rtcp-fb:* nack\r\na=rtcp-fb:* nack pli\r\na=rtcp-fb:* ccm fir\r\na=rtcp-fb:* transport-cc\r\na=rtcp-fb:* goog-remb\r\n"
		sections += s
	}
	return bundled(sdptest.Offer(sections), mids[1:])
}

// Most of the time is pion's, for 128 sections.
func BenchmarkDearLinkDescription(b *testing.B) {
	s := bareSFU(b)
	text := dearLinkDescription()
	b.ReportMetric(float64(len(text)), "bytes")
	for b.Loop() {
		media, err := rtc.LinkMedia()
		if err != nil {
			b.Fatal(err)
		}
		pc, err := s.engine.Link(media)
		if err != nil {
			b.Fatal(err)
		}
		normal, err := sdp.LinkText(text, cascade.Limits)
		if err != nil {
			b.Fatal(err)
		}
		if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: normal}); err != nil {
			b.Fatal(err)
		}
		if _, err := pc.CreateAnswer(nil); err != nil {
			b.Fatal(err)
		}
		if err := pc.GracefulClose(); err != nil {
			b.Fatal(err)
		}
	}
}

// A viewer of a stream without audio offers audio first: the section is
// rejected, and the candidates are in the section where the client expects
// them.
func TestRejectedFirstSection(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	offer := func(sections ...string) *sdp.Offer {
		o, err := sdp.ParseOffer([]byte(strings.Replace(sdptest.Offer(sections...), "t=0 0\r\n", "t=0 0\r\na=group:BUNDLE 0 1\r\n", 1)))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	p, tracks, _, err := a.engine.Publish(t.Context(), offer(sdptest.Video("0", "sendonly")), &a.drops, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	v, answer, err := a.engine.View(t.Context(), forward.NewStream("x", tracks, time.Now()), offer(sdptest.Audio("0", "recvonly"), sdptest.Video("1", "recvonly")), func(forward.Kind, time.Time) {})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	_, sections, _ := strings.Cut(answer, "m=audio 9 ")
	audio, video, ok := strings.Cut(sections, "m=video ")
	if !ok || strings.HasPrefix(video, "0 ") || !strings.Contains(audio, "a=inactive") || !strings.Contains(audio, "a=mid:0") || strings.Contains(video, "candidate") || !strings.Contains(audio, "a=candidate:") || !strings.Contains(audio, "a=end-of-candidates") {
		t.Errorf("answer:\n%s", answer)
	}
}

// keyPayload is a VP8 payload that begins a keyframe (RFC 7741, sections 4.2 and
// 4.3).
var keyPayload = []byte{0x10, 0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01}

// A client that really sends under ever new SSRCs loses its session, and
// nothing else happens.
func TestFloodOfSSRCsEndsTheSession(t *testing.T) {
	t.Parallel()
	n := newMesh(t).add(ledger.Limits{}, nil)
	tracks := publishRaw(t, n, "flood", nil, param(webrtc.MimeTypeVP8, 96, ""))
	other := n.publish("other")
	v := n.watch("other")
	every(t, func() {
		for range 20 {
			tracks[0].mu.Lock()
			tracks[0].h.SSRC++
			tracks[0].mu.Unlock()
			tracks[0].send(keyPayload, true, 3000)
		}
	})
	eventually(t, "the session is ended", func() bool {
		for _, s := range n.Clients().Sessions() {
			if s.Stream == "flood" {
				return false
			}
		}
		return true
	})
	flows(t, v, 10)
	select {
	case <-other.Done():
		t.Error("another publisher lost its connection")
	default:
	}
}
