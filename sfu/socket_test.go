package sfu

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

// dtls builds one DTLS record.
func dtlsRecord(kind byte, epoch uint16, payload int) []byte {
	r := []byte{kind, 0xfe, 0xfd, byte(epoch >> 8), byte(epoch), 0, 0, 0, 0, 0, 1, byte(payload >> 8), byte(payload)}
	return append(r, make([]byte, payload)...)
}

func TestForgeable(t *testing.T) {
	const handshake = 22
	for name, c := range map[string]struct {
		datagram []byte
		want     bool
	}{
		"an alert in the clear":                           {dtlsRecord(dtlsAlert, 0, 2), true},
		"application data in the clear":                   {dtlsRecord(dtlsApplicationData, 0, 4), true},
		"an alert behind a handshake record":              {append(dtlsRecord(handshake, 0, 20), dtlsRecord(dtlsAlert, 0, 2)...), true},
		"an alert whose length lies":                      {dtlsRecord(dtlsAlert, 0, 2)[:14], true},
		"a handshake record passes":                       {dtlsRecord(handshake, 0, 20), false},
		"an encrypted alert passes":                       {dtlsRecord(dtlsAlert, 1, 26), false},
		"encrypted application data passes":               {dtlsRecord(dtlsApplicationData, 1, 40), false},
		"STUN passes":                                     {append([]byte{0, 1, 0, 0}, make([]byte, 16)...), false},
		"RTP passes":                                      {append([]byte{0x80, 96}, make([]byte, 10)...), false},
		"an empty datagram passes":                        {nil, false},
		"a record cut short in its header passes":         {dtlsRecord(dtlsAlert, 0, 2)[:12], false},
		"a handshake record that claims more than it has": {dtlsRecord(handshake, 0, 20)[:20], false},
	} {
		if got := forgeable(c.datagram); got != c.want {
			t.Errorf("%s: forgeable = %v, want %v", name, got, c.want)
		}
	}
}

func FuzzForgeable(f *testing.F) {
	f.Add(dtlsRecord(dtlsAlert, 0, 2))
	f.Add(append(dtlsRecord(22, 0, 20), dtlsRecord(dtlsApplicationData, 0, 2)...))
	f.Add([]byte{0x80, 96})
	f.Fuzz(func(t *testing.T, b []byte) {
		if forgeable(b) && (len(b) < dtlsHeader || b[0] < 20 || b[0] > 63) {
			t.Errorf("dropped what is not DTLS: %x", b)
		}
	})
}

// What could end a session is kept from the reader and counted; the rest comes
// through.
func TestSocketDropsForgeries(t *testing.T) {
	s, err := ListenMedia("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	peer, err := net.Dial("udp", s.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	good := []byte{0x80, 96, 1, 2, 3}
	for _, d := range [][]byte{dtlsRecord(dtlsAlert, 0, 2), dtlsRecord(dtlsApplicationData, 0, 4), good} {
		if _, err := peer.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1500)
	n, _, err := s.ReadFrom(buf)
	if err != nil || !bytes.Equal(buf[:n], good) {
		t.Errorf("read %x, %v; want the RTP packet", buf[:n], err)
	}
	if c := s.Counters(); c.Dropped != 2 || c.PacketsIn != 3 {
		t.Errorf("counted %+v, want 2 dropped of 3", c)
	}
}

func TestListenMediaSaysWhatIsWrong(t *testing.T) {
	s, err := ListenMedia("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := ListenMedia(s.LocalAddr().String()); err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), "--media-port") {
		t.Errorf("a busy port: %v", err)
	}
	if _, err := ListenMedia("nowhere"); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no address: %v", err)
	}
}
