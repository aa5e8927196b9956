package udp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An interrupted read goes on; another error is returned, and the next read is
// as good as any.
func TestReadMeetsFaults(t *testing.T) {
	s, own := listenOn(t, "127.0.0.1:0", "127.0.0.1", func(*wire) {})
	if !s.wire.gathers {
		t.Skip("this kernel has no recvmmsg")
	}
	conns, _ := peers(t, "127.0.0.1", 1)
	faults := []syscall.Errno{unix.EINTR, unix.EAGAIN, unix.ENOMEM}
	s.wire.recvmmsg = func(fd uintptr, h []header) (int, syscall.Errno) {
		if len(faults) == 0 {
			return recvmmsg(fd, h)
		}
		errno := faults[0]
		faults = faults[1:]
		if errno == unix.EAGAIN { // then there is something to wait for
			if _, err := conns[0].WriteToUDPAddrPort([]byte{0x80, 1}, own); err != nil {
				t.Error(err)
			}
		}
		return -1, errno
	}
	_ = s.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	if n, _, err := s.ReadFromAddrPort(buf); !errors.Is(err, unix.ENOMEM) {
		t.Errorf("read %d bytes, %v; want no memory", n, err)
	}
	if n, _, err := s.ReadFromAddrPort(buf); n != 2 || err != nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// The sources are those that net.UDPConn gives.
func TestSourceOfNames(t *testing.T) {
	var a arrivals
	a.zones = map[uint32]string{}
	six := &a.names[0]
	for want, set := range map[string]func(){
		"192.0.2.7:258":          func() { writeName(six, false, netip.MustParseAddrPort("192.0.2.7:258")) },
		"[::ffff:192.0.2.7]:258": func() { writeName(six, true, netip.MustParseAddrPort("192.0.2.7:258")) },
		"[2001:db8::1]:9":        func() { writeName(six, true, netip.MustParseAddrPort("[2001:db8::1]:9")) },
		"[fe80::1%lo]:9": func() {
			writeName(six, true, netip.MustParseAddrPort("[fe80::1]:9"))
			six.Scope_id = 1
		},
		"[fe80::1%99999]:9": func() {
			writeName(six, true, netip.MustParseAddrPort("[fe80::1]:9"))
			six.Scope_id = 99999
		},
		"invalid AddrPort": func() { six.Family = 0 },
	} {
		set()
		if got := a.source(0).String(); got != want {
			t.Errorf("the source is %s, want %s", got, want)
		}
	}
}

// groControl makes the control message for joined datagrams, behind others.
func groControl(segment int32, before ...byte) []byte {
	b := bytes.Clone(before)
	h := unix.Cmsghdr{Level: unix.SOL_UDP, Type: unix.UDP_GRO}
	h.SetLen(unix.CmsgLen(4))
	b = append(b, unsafe.Slice((*byte)(unsafe.Pointer(&h)), unix.SizeofCmsghdr)...)
	b = binary.NativeEndian.AppendUint32(b, uint32(segment))
	return append(b, make([]byte, unix.CmsgSpace(4)-unix.CmsgLen(4))...)
}

func TestSegmentSize(t *testing.T) {
	four, both := sendFrom(netip.MustParseAddr("192.0.2.1")), sendFrom(netip.MustParseAddr("2001:db8::1"))
	long := groControl(1200)
	long[0] = 0xff // its length
	for _, c := range []struct {
		name    string
		control []byte
		want    int
	}{
		{"none", nil, 0},
		{"alone", groControl(1200), 1200},
		{"behind IPv4 pktinfo", groControl(1200, four...), 1200},
		{"behind IPv6 pktinfo", groControl(1200, both...), 1200},
		{"pktinfo alone", both, 0},
		{"negative", groControl(-1), 0},
		{"cut in its header", groControl(1200)[:unix.SizeofCmsghdr-1], 0},
		{"cut in its data", groControl(1200)[:unix.CmsgLen(2)], 0},
		{"longer than there is", long, 0},
		{"of no length", make([]byte, 64), 0},
	} {
		if got := segmentSize(c.control); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

// Whatever the control messages say, joined datagrams are divided into
// themselves, and all but the last of one length.
func FuzzJoined(f *testing.F) {
	f.Add([]byte{}, []byte("one datagram"))
	f.Add(groControl(4), []byte("foursome of datagrams"))
	f.Add(groControl(4, sendFrom(netip.MustParseAddr("2001:db8::1"))...), []byte("12341234"))
	f.Add(groControl(-4), []byte("1234"))
	f.Add(groControl(1<<30), []byte("1234"))
	f.Add(groControl(1, make([]byte, 17)...), []byte{})
	f.Fuzz(func(t *testing.T, control, message []byte) {
		segment := segmentSize(control)
		if segment < 0 {
			t.Fatalf("datagrams of %d bytes", segment)
		}
		var whole []byte
		for first, rest := split(message, segment); ; first, rest = split(rest, segment) {
			whole = append(whole, first...)
			if len(rest) == 0 {
				break
			}
			if len(first) != segment {
				t.Fatalf("a datagram of %d bytes is not the last, of %d", len(first), segment)
			}
		}
		if !bytes.Equal(whole, message) {
			t.Errorf("%x becomes %x", message, whole)
		}
	})
}

// BenchmarkRead measures the CPU time for a datagram that is read, without that
// of its sender, for bursts of some packets.
func BenchmarkRead(b *testing.B) {
	for _, path := range receivePaths {
		for _, packets := range []int{1, 4, 9} {
			b.Run(fmt.Sprintf("%s/packets=%d", path.name, packets), func(b *testing.B) {
				s, own := listenOn(b, "127.0.0.1:0", "127.0.0.1", path.set)
				peer, _ := listenOn(b, "127.0.0.1:0", "127.0.0.1", func(*wire) {})
				s.Lose = func(b []byte, _ netip.AddrPort) bool { b[0] = 0x80; return false } // RTP: admitted
				batch, buf := peer.NewBatch(), make([]byte, 1500)
				b.ReportAllocs()
				used, read := time.Duration(0), 0
				for b.Loop() {
					for range 16 {
						fill(batch, []netip.AddrPort{own}, packets)
					}
					began := cpu(b)
					for range 16 * packets {
						if _, _, err := s.ReadFromAddrPort(buf); err != nil {
							b.Fatal(err)
						}
					}
					used += cpu(b) - began
					read += 16 * packets
				}
				c := s.Counters().Reads
				b.ReportMetric(float64(used)/float64(read), "cpu-ns/datagram")
				b.ReportMetric(float64(c.Datagrams)/float64(c.Messages), "datagrams/message")
				b.ReportMetric(float64(c.Datagrams)/float64(c.Calls), "datagrams/call")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
