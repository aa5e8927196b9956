package sdp

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"weir/sfu/sdp/sdptest"

	"github.com/pion/webrtc/v4"
)

func TestParseOffer(t *testing.T) {
	o, err := ParseOffer([]byte(sdptest.Offer(
		sdptest.Audio("audio0", "sendonly"),
		sdptest.Video("1", "sendrecv")+"a=rid:h send\r\na=simulcast:send h\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n",
	)))
	if err != nil {
		t.Fatal(err)
	}
	if text := textOf(o); strings.Contains(text, "simulcast") || strings.Contains(text, "a=rid") {
		t.Error("simulcast is still in the offer")
	}
	if o.Sections[0].Ufrag != "abcd" || len(o.Sections) != 2 {
		t.Fatalf("ufrag %q, %d sections", o.Sections[0].Ufrag, len(o.Sections))
	}
	a, v := o.Sections[0], o.Sections[1]
	if a.MID != "audio0" || !a.Sends || a.Receives || len(a.codecs) != 2 || a.codecs[0].Channels != 2 || a.codecs[0].ClockRate != 48000 {
		t.Errorf("audio section = %+v", a)
	}
	if !v.Sends || !v.Receives || len(v.codecs) != 2 || v.codecs[0].MimeType != webrtc.MimeTypeVP8 || v.codecs[0].RTX != 97 || v.codecs[1].RTX != 99 {
		t.Errorf("video section = %+v", v)
	}
}

func TestParseOfferRefuses(t *testing.T) {
	for want, body := range map[string]string{
		"no media section":     "hello",
		"media sections":       sdptest.Offer(strings.Repeat(sdptest.Video("0", "recvonly"), MaxSections+1)),
		"longer than":          sdptest.Offer(sdptest.Video("0", "recvonly"), "a="+strings.Repeat("x", MaxBytes)+"\r\n"),
		"no a=ice-ufrag":       strings.Replace(sdptest.Offer(sdptest.Video("0", "recvonly")), "a=ice-ufrag:abcd\r\n", "", 1),
		"no a=fingerprint":     strings.Replace(sdptest.Offer(sdptest.Video("0", "recvonly")), "a=fingerprint", "a=x", 1),
		"no a=mid of its own":  sdptest.Offer(sdptest.Video("0", "recvonly"), sdptest.Video("0", "recvonly")),
		"only audio and video": sdptest.Offer("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\n"),
		"bad SDP":              "v=1\r\nm=video\r\n",
	} {
		_, err := ParseOffer([]byte(body))
		var bad Error
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that says %q", err, want)
		}
	}
}

// codecs of one section, as "H264 packetization-mode=1;…".
func sectionOf(lines ...string) *Section {
	s := &Section{Kind: webrtc.RTPCodecTypeVideo}
	for i, line := range lines {
		name, fmtp, _ := strings.Cut(line, " ")
		c := Codec{PT: webrtc.PayloadType(96 + i)}
		c.MimeType, c.ClockRate, c.SDPFmtpLine = "video/"+name, 90000, fmtp
		s.codecs = append(s.codecs, c)
	}
	return s
}

func TestPreferredAndMatch(t *testing.T) {
	t.Run("the first codec is preferred", func(t *testing.T) {
		if c, ok := sectionOf("VP9 profile-id=0", "VP8").Preferred(nil); !ok || c.MimeType != "video/VP9" {
			t.Errorf("got %+v, %v", c, ok)
		}
	})
	t.Run("H264 in packetization mode 1 before mode 0", func(t *testing.T) {
		s := sectionOf("H264 packetization-mode=0;profile-level-id=42e01f", "VP8", "H264 packetization-mode=1;profile-level-id=42e01f")
		if c, _ := s.Preferred(nil); c.PT != 98 {
			t.Errorf("got payload type %d", c.PT)
		}
	})
	t.Run("nothing to prefer", func(t *testing.T) {
		if _, ok := sectionOf().Preferred(nil); ok {
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
			got, ok := sectionOf(c.offers...).Match(want, nil)
			if ok != (c.pt != 0) || got.PT != c.pt {
				t.Errorf("matched payload type %d, %v; want %d", got.PT, ok, c.pt)
			}
		})
	}
}

func TestParseFragment(t *testing.T) {
	f, err := ParseFragment([]byte("a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:1 1 UDP 1 198.51.100.1 39132 typ host\r\na=end-of-candidates\r\n"))
	if err != nil || f.Ufrag != "EsAw" || f.Pwd == "" || len(f.Candidates) != 1 || f.Candidates[0].addr.String() != "198.51.100.1:39132" {
		t.Errorf("got %+v, %v", f, err)
	}
	for name, body := range map[string]string{
		"empty":         "",
		"no SDP at all": "{\"candidate\": 1}",
		"neither":       "a=mid:0\r\n",
		"too long":      "a=ice-ufrag:x\r\na=" + strings.Repeat("x", MaxBytes),
	} {
		if f, err := ParseFragment([]byte(body)); err == nil {
			t.Errorf("%s: taken as %+v", name, f)
		}
	}
}

func TestCredentialsAreReplaced(t *testing.T) {
	o, err := ParseOffer([]byte(sdptest.Offer(sdptest.Video("0", "recvonly") + "a=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	takeAll(o)
	if text := o.Text(); !strings.Contains(text, "a=ice-ufrag:abcd\r\n") || strings.Contains(text, "candidate") {
		t.Errorf("before: %s", text)
	}
	got := o.Restarted("new", "secret").Text()
	if !strings.Contains(got, "a=ice-ufrag:new\r\n") || !strings.Contains(got, "a=ice-pwd:secret\r\n") || strings.Contains(got, "abcd") || strings.Contains(got, "candidate") {
		t.Errorf("got %s", got)
	}
}

// takeAll accepts all possible sections of o, as a publisher's offer or a
// viewer's.
func takeAll(o *Offer) {
	used := map[webrtc.PayloadType]string{}
	for _, s := range o.Sections {
		if c, ok := s.Preferred(used); ok && o.InUse(s) {
			ClaimPayloadTypes(used, &c)
			o.Take(s, c)
		}
	}
	if len(o.Taken) > 0 && o.Settle() != nil {
		o.Taken = nil
	}
}

// textOf returns the text of o for pion.
func textOf(o *Offer) string {
	o = o.Untaken()
	takeAll(o)
	return o.Text()
}

func TestRestartFragmentHasOneLineACandidate(t *testing.T) {
	answer := "a=ice-lite\r\n"
	for range 2 { // once in each section
		answer += "a=ice-ufrag:u\r\na=ice-pwd:p\r\na=candidate:1 1 udp 1 127.0.0.1 9 typ host\r\na=candidate:1 2 udp 1 127.0.0.1 9 typ host\r\na=end-of-candidates\r\n"
	}
	got := RestartFragment(answer)
	if n := strings.Count(got, "a=candidate"); n != 1 || strings.Count(got, "a=ice-ufrag") != 1 {
		t.Errorf("fragment:\n%s", got)
	}
}

// Chromium's own offers: the simulcast one is held to one layer.
func TestChromiumOffers(t *testing.T) {
	for name, c := range map[string]struct{ sends bool }{"whip": {true}, "whep": {false}} {
		raw, err := os.ReadFile("testdata/chromium-" + name + ".sdp")
		if err != nil {
			t.Fatal(err)
		}
		o, err := ParseOffer(raw)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(o.Sections) != 2 || strings.Contains(textOf(o), "simulcast") {
			t.Errorf("%s: %d sections", name, len(o.Sections))
		}
		mimes := map[string]bool{}
		for _, s := range o.Sections {
			if s.Sends != c.sends || s.Receives == c.sends {
				t.Errorf("%s: section %s sends %v, receives %v", name, s.MID, s.Sends, s.Receives)
			}
			for _, codec := range s.codecs {
				mimes[codec.MimeType] = true
				if s.Kind == webrtc.RTPCodecTypeVideo && codec.RTX == 0 {
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

// For any offer, the parse is bounded, and pion can be given the accepted part
// without a panic.
func FuzzParseOffer(f *testing.F) {
	sdptest.Corpus(f, "testdata")
	f.Add([]byte(sdptest.Offer(sdptest.Audio("0", "sendonly"), sdptest.Video("1", "sendrecv"))))
	f.Add([]byte("v=0\r\nm=video 9 x 96\r\na=mid:0\r\na=rtpmap:96 VP8/0\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOffer(b)
		if err != nil {
			return
		}
		if len(o.Sections) == 0 || len(o.Sections) > MaxSections {
			t.Errorf("accepted %d sections", len(o.Sections))
		}
		for _, s := range o.Sections {
			for _, c := range s.codecs {
				if c.ClockRate == 0 || KindOf(c.MimeType) != s.Kind {
					t.Errorf("codec %+v in a %s section", c, s.Kind)
				}
			}
		}
	})
}

func FuzzParseFragment(f *testing.F) {
	f.Add([]byte("a=ice-ufrag:EsAw\r\na=ice-pwd:x\r\na=mid:0\r\na=candidate:1 1 UDP 1 198.51.100.1 39132 typ host\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if f, err := ParseFragment(b); err == nil && (len(f.Candidates) > MaxCandidates || len(f.Ufrag) > maxToken || len(f.Pwd) > maxToken) {
			t.Errorf("accepted %+v", f)
		}
	})
}

// Layers are read in each spelling, within bounds, and answered by name.
func TestSimulcastIsAnswered(t *testing.T) {
	for _, c := range []struct {
		name, lines string
		layers      []string
		sim         []uint32
		answer      string
	}{
		{"Chromium's and Firefox's", "a=rid:h send\r\na=rid:m send\r\na=simulcast:send h;m\r\n", []string{"h", "m"}, nil, "a=rid:h recv\r\na=rid:m recv\r\na=simulcast:recv h;m\r\n"},
		{"paused layers and alternatives", "a=simulcast:recv x send ~h;m,n;m\r\n", []string{"h", "m"}, nil, "a=rid:h recv\r\na=rid:m recv\r\na=simulcast:recv h;m\r\n"},
		{"an old spelling", "a=simulcast: send rid=h;l\r\n", []string{"h", "l"}, nil, "a=rid:h recv\r\na=rid:l recv\r\na=simulcast:recv h;l\r\n"},
		{"restrictions", "a=rid:h send pt=96,97;max-width=640\r\na=simulcast:send h\r\n", []string{"h"}, nil, "a=rid:h recv max-width=640\r\na=simulcast:recv h\r\n"},
		{"too many", "a=simulcast:send a;b;c;d;e;f\r\n", []string{"a", "b", "c", "d"}, nil, "a=rid:a recv\r\na=rid:b recv\r\na=rid:c recv\r\na=rid:d recv\r\na=simulcast:recv a;b;c;d\r\n"},
		{"by SSRC", "a=ssrc-group:SIM 1 2 3\r\na=ssrc-group:FID 1 4\r\n", nil, []uint32{1, 2, 3}, ""},
		{"an SSRC twice", "a=ssrc-group:SIM 1 1\r\n", nil, nil, ""},
		{"none that is sent", "a=simulcast:recv h;l\r\n", nil, nil, ""},
	} {
		o, err := ParseOffer([]byte(sdptest.Offer(sdptest.Video("0", "sendonly") + c.lines)))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		s := o.Sections[0]
		s.Simulcast = s.Layers
		if !slices.Equal(s.Layers, c.layers) || !slices.Equal(s.Sim, c.sim) || s.simulcastText() != c.answer {
			t.Errorf("%s: %q, %v, answered %q", c.name, s.Layers, s.Sim, s.simulcastText())
		}
	}
}
