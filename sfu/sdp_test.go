package sfu

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pion/webrtc/v4"

	"weir/capacity/ledger"
)

// offerOf is a small offer with the sections given.
func offerOf(sections ...string) string {
	head := "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n" +
		"a=fingerprint:sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF\r\na=setup:actpass\r\n"
	return head + strings.Join(sections, "")
}

func videoSection(mid, direction string) string {
	return "m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99\r\nc=IN IP4 0.0.0.0\r\na=mid:" + mid + "\r\na=" + direction + "\r\na=rtcp-mux\r\n" +
		"a=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n" +
		"a=rtpmap:98 H264/90000\r\na=fmtp:98 packetization-mode=1;profile-level-id=42e01f\r\na=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n"
}

func audioSection(mid, direction string) string {
	return "m=audio 9 UDP/TLS/RTP/SAVPF 111 0\r\nc=IN IP4 0.0.0.0\r\na=mid:" + mid + "\r\na=" + direction + "\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n"
}

func TestParseOffer(t *testing.T) {
	o, err := parseOffer([]byte(offerOf(
		audioSection("audio0", "sendonly"),
		videoSection("1", "sendrecv")+"a=rid:h send\r\na=simulcast:send h\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n",
	)))
	if err != nil {
		t.Fatal(err)
	}
	if text := textOf(o); strings.Contains(text, "simulcast") || strings.Contains(text, "a=rid") {
		t.Error("simulcast is still in the offer")
	}
	if o.sections[0].ufrag != "abcd" || len(o.sections) != 2 {
		t.Fatalf("ufrag %q, %d sections", o.sections[0].ufrag, len(o.sections))
	}
	a, v := o.sections[0], o.sections[1]
	if a.mid != "audio0" || !a.sends || a.receives || len(a.codecs) != 2 || a.codecs[0].Channels != 2 || a.codecs[0].ClockRate != 48000 {
		t.Errorf("audio section = %+v", a)
	}
	if !v.sends || !v.receives || len(v.codecs) != 2 || v.codecs[0].MimeType != webrtc.MimeTypeVP8 || v.codecs[0].rtx != 97 || v.codecs[1].rtx != 99 {
		t.Errorf("video section = %+v", v)
	}
}

func TestParseOfferRefuses(t *testing.T) {
	for want, body := range map[string]string{
		"no media section":     "hello",
		"media sections":       offerOf(strings.Repeat(videoSection("0", "recvonly"), maxSections+1)),
		"longer than":          offerOf(videoSection("0", "recvonly"), "a="+strings.Repeat("x", MaxSDP)+"\r\n"),
		"no a=ice-ufrag":       strings.Replace(offerOf(videoSection("0", "recvonly")), "a=ice-ufrag:abcd\r\n", "", 1),
		"no a=fingerprint":     strings.Replace(offerOf(videoSection("0", "recvonly")), "a=fingerprint", "a=x", 1),
		"no a=mid of its own":  offerOf(videoSection("0", "recvonly"), videoSection("0", "recvonly")),
		"only audio and video": offerOf("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n"),
		"bad SDP":              "v=1\r\nm=video\r\n",
	} {
		_, err := parseOffer([]byte(body))
		var bad sdpError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}

// codecs of one section, as "H264 packetization-mode=1;…".
func sectionOf(lines ...string) *section {
	s := &section{kind: webrtc.RTPCodecTypeVideo}
	for i, line := range lines {
		name, fmtp, _ := strings.Cut(line, " ")
		c := offered{pt: webrtc.PayloadType(96 + i)}
		c.MimeType, c.ClockRate, c.SDPFmtpLine = "video/"+name, 90000, fmtp
		s.codecs = append(s.codecs, c)
	}
	return s
}

func TestPreferredAndMatch(t *testing.T) {
	t.Run("the first codec is preferred", func(t *testing.T) {
		if c, ok := sectionOf("VP9 profile-id=0", "VP8").preferred(nil); !ok || c.MimeType != "video/VP9" {
			t.Errorf("got %+v, %v", c, ok)
		}
	})
	t.Run("H264 in packetization mode 1 before mode 0", func(t *testing.T) {
		s := sectionOf("H264 packetization-mode=0;profile-level-id=42e01f", "VP8", "H264 packetization-mode=1;profile-level-id=42e01f")
		if c, _ := s.preferred(nil); c.pt != 98 {
			t.Errorf("got payload type %d", c.pt)
		}
	})
	t.Run("nothing to prefer", func(t *testing.T) {
		if _, ok := sectionOf().preferred(nil); ok {
			t.Error("found a codec in an empty section")
		}
	})
	for _, c := range []struct {
		name, want string
		offers     []string
		pt         webrtc.PayloadType
	}{
		{"the same profile, whatever the level", "H264 packetization-mode=1;profile-level-id=640c1f", []string{
			"H264 packetization-mode=1;profile-level-id=42001f", "H264 packetization-mode=1;profile-level-id=640c34"}, 97},
		{"the packetization mode counts more than the profile", "H264 packetization-mode=1;profile-level-id=42e01f", []string{
			"H264 packetization-mode=0;profile-level-id=42e01f", "H264 packetization-mode=1;profile-level-id=4d001f"}, 97},
		{"a decoder of less than the stream is none", "H264 packetization-mode=1;profile-level-id=64001f", []string{"VP8", "H264 packetization-mode=1;profile-level-id=42e01f", "H264 packetization-mode=1;profile-level-id=4d001f"}, 0},
		{"a decoder of more is one", "H264 packetization-mode=1;profile-level-id=42e01f", []string{"H264 packetization-mode=1;profile-level-id=640c1f"}, 96},
		{"High 4:4:4 contains High", "H264 packetization-mode=1;profile-level-id=640028", []string{"H264 packetization-mode=1;profile-level-id=4d001f", "H264 packetization-mode=1;profile-level-id=f4001f"}, 97},
		{"another packetization mode is another format", "H264 packetization-mode=1;profile-level-id=42e01f", []string{"H264 profile-level-id=42e01f"}, 0},
		{"mode 1 takes what is sent in mode 0", "H264 profile-level-id=42e01f", []string{"H264 packetization-mode=1;profile-level-id=42e01f"}, 96},
		{"no profile is Baseline", "H264 packetization-mode=1", []string{"H264 packetization-mode=1;profile-level-id=42e01f"}, 96},
		{"a decoder that names no profile takes any", "H264 packetization-mode=1;profile-level-id=640028", []string{"H264 packetization-mode=1"}, 96},
		{"but none of 10 bits", "H264 packetization-mode=1;profile-level-id=6e0028", []string{"H264 packetization-mode=1"}, 0},
		{"seven digits, as FFmpeg writes them", "H264 packetization-mode=1;profile-level-id=422001f", []string{"H264 packetization-mode=1;profile-level-id=42e01f"}, 96},
		{"another profile of VP9", "VP9 profile-id=2", []string{"VP9 profile-id=0"}, 0},
		{"AV1 High contains Main", "AV1", []string{"AV1 profile=1"}, 96},
		{"VP9's profile", "VP9 profile-id=2", []string{"VP9", "VP9 profile-id=2"}, 97},
		{"no profile is profile 0", "VP9", []string{"VP9 profile-id=2", "VP9 profile-id=0"}, 97},
		{"no other codec", "AV1", []string{"VP8", "VP9"}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := sectionOf(c.want).codecs[0].RTPCodecCapability
			got, ok := sectionOf(c.offers...).match(want, nil)
			if ok != (c.pt != 0) || got.pt != c.pt {
				t.Errorf("matched payload type %d, %v; want %d", got.pt, ok, c.pt)
			}
		})
	}
}

func TestParseFragment(t *testing.T) {
	f, err := parseFragment([]byte("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 UDP 1 198.51.100.1 39132 typ host\r\na=end-of-candidates\r\n"))
	if err != nil || f.ufrag != "EsAw" || f.pwd == "" || len(f.candidates) != 1 || f.candidates[0].addr.String() != "198.51.100.1:39132" {
		t.Errorf("got %+v, %v", f, err)
	}
	for name, body := range map[string]string{
		"empty":         "",
		"no SDP at all": "{\"candidate\": 1}",
		"neither":       "a=mid:0\r\n",
		"too long":      "a=ice-ufrag:x\r\na=" + strings.Repeat("x", MaxSDP),
	} {
		if f, err := parseFragment([]byte(body)); err == nil {
			t.Errorf("%s: taken as %+v", name, f)
		}
	}
}

func TestCredentialsAreReplaced(t *testing.T) {
	o, err := parseOffer([]byte(offerOf(videoSection("0", "recvonly") + "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	takeAll(o)
	if text := o.text(); !strings.Contains(text, "a=ice-ufrag:abcd\r\n") || !strings.Contains(text, "candidate") {
		t.Errorf("before: %s", text)
	}
	got := o.restarted("new", "secret").text()
	if !strings.Contains(got, "a=ice-ufrag:new\r\n") || !strings.Contains(got, "a=ice-pwd:secret\r\n") || strings.Contains(got, "abcd") || strings.Contains(got, "candidate") {
		t.Errorf("got %s", got)
	}
}

// takeAll takes what can be taken of o, as a publisher's offer or a viewer's.
func takeAll(o *offer) {
	used := map[webrtc.PayloadType]string{}
	for _, s := range o.sections {
		if c, ok := s.preferred(used); ok && o.inUse(s) {
			claim(used, &c)
			o.take(s, c)
		}
	}
	if len(o.taken) > 0 && o.settle() != nil {
		o.taken = nil
	}
}

// textOf is what pion would be given of o.
func textOf(o *offer) string {
	o = o.again()
	takeAll(o)
	return o.text()
}

func TestRestartFragmentHasOneLineACandidate(t *testing.T) {
	answer := "a=ice-lite\r\n"
	for range 2 { // once in each section
		answer += "a=ice-ufrag:u\r\na=ice-pwd:p\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\na=candidate:1 2 udp 1 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n"
	}
	got := restartFragment(answer)
	if n := strings.Count(got, "a=candidate"); n != 1 || strings.Count(got, "a=ice-ufrag") != 1 {
		t.Errorf("fragment:\n%s", got)
	}
}

// A viewer of a stream without audio offers audio first: the section is
// rejected, and the candidates stand where the client looks for them.
func TestRejectedFirstSection(t *testing.T) {
	m := newMesh(t)
	a := m.add(ledger.Limits{}, nil)
	offer := func(sections ...string) *offer {
		o, err := parseOffer([]byte(strings.Replace(offerOf(sections...), "t=0 0\r\n", "t=0 0\r\na=group:BUNDLE 0 1\r\n", 1)))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	p, _, err := a.publisher(t.Context(), "x", offer(videoSection("0", "sendonly")), "entry", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer p.discard()
	v, answer, err := a.viewer(t.Context(), p.stream, offer(audioSection("0", "recvonly"), videoSection("1", "recvonly")), "entry", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer v.discard()
	_, sections, _ := strings.Cut(answer, "m=audio 0 ")
	audio, video, ok := strings.Cut(sections, "m=video ")
	if !ok || strings.HasPrefix(video, "0 ") || strings.Contains(audio, "candidate") || !strings.Contains(audio, "a=mid:0") || !strings.Contains(video, "a=candidate:") || !strings.Contains(video, "a=end-of-candidates") {
		t.Errorf("answer:\n%s", answer)
	}
}

// Chromium's own offers: the simulcast one is held to one layer.
func TestChromiumOffers(t *testing.T) {
	for name, c := range map[string]struct{ sends bool }{"whip": {true}, "whep": {false}} {
		raw, err := os.ReadFile("testdata/sdp/chromium-" + name + ".sdp")
		if err != nil {
			t.Fatal(err)
		}
		o, err := parseOffer(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(o.sections) != 2 || strings.Contains(textOf(o), "simulcast") {
			t.Errorf("%s: %d sections", name, len(o.sections))
		}
		mimes := map[string]bool{}
		for _, s := range o.sections {
			if s.sends != c.sends || s.receives == c.sends {
				t.Errorf("%s: section %s sends %v, receives %v", name, s.mid, s.sends, s.receives)
			}
			for _, codec := range s.codecs {
				mimes[codec.MimeType] = true
				if s.kind == webrtc.RTPCodecTypeVideo && codec.rtx == 0 {
					t.Errorf("%s: %s %s has no retransmissions", name, codec.MimeType, codec.SDPFmtpLine)
				}
			}
		}
		for _, want := range []string{webrtc.MimeTypeOpus, webrtc.MimeTypeVP8, webrtc.MimeTypeVP9, webrtc.MimeTypeH264, webrtc.MimeTypeAV1} {
			if !mimes[want] {
				t.Errorf("%s: no %s among %v", name, want, mimes)
			}
		}
	}
}

// corpus adds the offers of real clients in testdata/sdp.
func corpus(f *testing.F) {
	files, err := filepath.Glob("testdata/sdp/*.sdp")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
}

// Whatever a client offers, the parse is bounded, and what it accepts pion can
// be given without a panic.
func FuzzParseOffer(f *testing.F) {
	corpus(f)
	f.Add([]byte(offerOf(audioSection("0", "sendonly"), videoSection("1", "sendrecv"))))
	f.Add([]byte("v=0\r\nm=video 9 x 96\r\na=mid:0\r\na=rtpmap:96 VP8/0\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := parseOffer(b)
		if err != nil {
			return
		}
		if len(o.sections) == 0 || len(o.sections) > maxSections {
			t.Errorf("accepted %d sections", len(o.sections))
		}
		for _, s := range o.sections {
			for _, c := range s.codecs {
				if c.ClockRate == 0 || kindOf(c.MimeType) != s.kind {
					t.Errorf("codec %+v in a %s section", c, s.kind)
				}
			}
		}
	})
}

func FuzzParseFragment(f *testing.F) {
	f.Add([]byte("a=ice-ufrag:EsAw\r\na=ice-pwd:x\r\na=mid:0\r\na=candidate:1 1 UDP 1 198.51.100.1 39132 typ host\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if f, err := parseFragment(b); err == nil && (len(f.candidates) > maxCandidates || len(f.ufrag) > maxToken || len(f.pwd) > maxToken) {
			t.Errorf("accepted %+v", f)
		}
	})
}
