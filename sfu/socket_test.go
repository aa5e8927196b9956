package sfu

import (
	"bytes"
	"net"
	"strings"
	"testing"
)

// What nobody here can have been sent is kept from the reader and counted; the
// rest comes through.
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
	for _, d := range [][]byte{record(dtlsAlert, 0, 2, 40), record(dtlsApplicationData, 0, 0, 0, 0, 0), good} {
		if _, err := peer.Write(d); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, 1500)
	n, _, err := s.ReadFrom(buf)
	if err != nil || !bytes.Equal(buf[:n], good) {
		t.Errorf("read %x, %v; want the RTP packet", buf[:n], err)
	}
	if c := s.Counters(); c.Dropped["unknown_source"] != 2 || c.PacketsIn != 3 {
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
