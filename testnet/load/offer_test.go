package load

import (
	"net/netip"
	"testing"
)

const goodAnswer = "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE 0\r\n" +
	"m=video 9 UDP/TLS/RTP/SAVPF 102\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=setup:passive\r\n" +
	"a=candidate:1 1 udp 2130706431 192.0.2.1 5000 typ host\r\na=candidate:1 1 udp 2130706431 ::1 5000 typ host\r\n" +
	"a=candidate:2 1 UDP 2130706430 127.0.0.1 5000 typ host\r\na=candidate:3 1 tcp 1 127.0.0.1 5001 typ host tcptype passive\r\n"

func TestParseAnswer(t *testing.T) {
	a, err := parseAnswer(goodAnswer)
	if err != nil {
		t.Fatal(err)
	}
	if !a.passive || a.ufrag != "u" || a.pwd != "p" {
		t.Errorf("got %+v", a)
	}
	if len(a.candidates) != 2 || a.candidates[0] != netip.MustParseAddrPort("127.0.0.1:5000") {
		t.Errorf("candidates %v, want loopback and then the other of IPv4", a.candidates)
	}
}

// What a server answers is either understood or an error.
func FuzzParseAnswer(f *testing.F) {
	f.Add(goodAnswer)
	f.Add("v=0\r\n")
	f.Add(offer{send: true, ufrag: "u", pwd: "p", fingerprint: "00", candidate: netip.MustParseAddrPort("127.0.0.1:9")}.String())
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAnswer(text)
		if err == nil && (a.ufrag == "" || a.pwd == "" || len(a.candidates) == 0) {
			t.Errorf("understood as %+v", a)
		}
	})
}
