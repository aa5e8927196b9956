package load

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/pion/sdp/v3"
)

// An offer is what the SDP of a peer says.
type offer struct {
	send        bool // or receive
	ufrag, pwd  string
	fingerprint string // of SHA-256
	candidate   netip.AddrPort
	ssrc        [kinds]uint32 // of one that sends
}

// String is the offer's text: one audio and one video section, bundled.
func (o offer) String() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("v=0\r\no=- %d 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1", o.candidate.Port())
	line("a=msid-semantic: WMS *")
	for k := audio; k < kinds; k++ {
		if k == audio {
			line("m=audio 9 UDP/TLS/RTP/SAVPF %d", audioPT)
		} else {
			line("m=video 9 UDP/TLS/RTP/SAVPF %d", videoPT)
		}
		line("c=IN IP4 0.0.0.0\r\na=rtcp:9 IN IP4 0.0.0.0\r\na=mid:%d\r\na=rtcp-mux", k)
		line("a=ice-ufrag:%s\r\na=ice-pwd:%s\r\na=fingerprint:sha-256 %s\r\na=setup:actpass", o.ufrag, o.pwd, o.fingerprint)
		if k == audio {
			line("a=rtpmap:%d opus/48000/2\r\na=fmtp:%d minptime=10;useinbandfec=1", audioPT, audioPT)
		} else {
			line("a=rtpmap:%d H264/90000\r\na=fmtp:%d level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", videoPT, videoPT)
			line("a=rtcp-fb:%d nack\r\na=rtcp-fb:%d nack pli\r\na=rtcp-fb:%d ccm fir", videoPT, videoPT, videoPT)
		}
		if o.send {
			line("a=sendonly\r\na=msid:load load%d\r\na=ssrc:%d cname:load\r\na=ssrc:%d msid:load load%d", k, o.ssrc[k], o.ssrc[k], k)
		} else {
			line("a=recvonly")
		}
		line("a=candidate:1 1 udp 2130706431 %s %d typ host\r\na=end-of-candidates", o.candidate.Addr(), o.candidate.Port())
	}
	return b.String()
}

// An answer is what a peer has to know of a server's answer.
type answer struct {
	ufrag, pwd string
	passive    bool             // the server waits for our ClientHello
	candidates []netip.AddrPort // of UDP and IPv4, loopback first
}

func parseAnswer(text string) (answer, error) {
	var d sdp.SessionDescription
	var a answer
	if err := d.UnmarshalString(text); err != nil {
		return a, fmt.Errorf("answer: %w", err)
	}
	value := func(name string) string {
		if v, ok := d.Attribute(name); ok {
			return v
		}
		for _, m := range d.MediaDescriptions {
			if v, ok := m.Attribute(name); ok {
				return v
			}
		}
		return ""
	}
	a.ufrag, a.pwd = value("ice-ufrag"), value("ice-pwd")
	a.passive = value("setup") != "active"
	for _, m := range d.MediaDescriptions {
		if m.MediaName.Port.Value == 0 {
			return a, fmt.Errorf("answer: the server takes no %s", m.MediaName.Media)
		}
		for _, attr := range m.Attributes {
			f := strings.Fields(attr.Value)
			if attr.Key != "candidate" || len(f) < 6 || !strings.EqualFold(f[2], "udp") {
				continue
			}
			addr, err := netip.ParseAddrPort(f[4] + ":" + f[5])
			if err == nil && addr.Addr().Is4() && !slices.Contains(a.candidates, addr) {
				a.candidates = append(a.candidates, addr)
			}
		}
	}
	if a.ufrag == "" || a.pwd == "" {
		return a, errors.New("answer: no ICE credentials")
	}
	if len(a.candidates) == 0 {
		return a, errors.New("answer: no candidate of UDP over IPv4")
	}
	slices.SortStableFunc(a.candidates, func(x, y netip.AddrPort) int {
		return int(b2i(y.Addr().IsLoopback())) - int(b2i(x.Addr().IsLoopback()))
	})
	return a, nil
}

func b2i(b bool) int8 {
	if b {
		return 1
	}
	return 0
}
