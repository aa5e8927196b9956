package signed

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/pb"
	"weir/capacity/tracing"
)

func leaseProto(tb testing.TB) *pb.Lease {
	tb.Helper()
	l := capacitytest.Lease(tb)
	return &pb.Lease{Id: l.ID, Target: []byte(l.Target), From: []byte(l.From), Need: &pb.Need{Stream: "s"}, Expires: uint64(l.Expires.UnixMilli())}
}

func ticketProto(tb testing.TB) *pb.Ticket {
	tb.Helper()
	t := capacitytest.Ticket(tb)
	return &pb.Ticket{Lease: t.Lease, Stream: t.Stream, Target: []byte(t.Target), From: []byte(t.From), Source: []byte(t.Source), Expires: uint64(t.Expires.UnixMilli())}
}

func TestOpenLease(t *testing.T) {
	l := capacitytest.Lease(t)
	key := capacitytest.Key(t, "target")
	good, err := SealLease(l, key)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*pb.Lease)) []byte {
		m := leaseProto(t)
		change(m)
		return sealRaw(t, leaseKind.label, m, key)
	}
	flipped := slices.Clone(good)
	flipped[len(flipped)-1] ^= 1
	for _, tt := range []struct {
		name   string
		sealed []byte
		now    time.Time
		want   error
	}{
		{"when given", good, capacitytest.Epoch, nil},
		{"at the end", good, l.Expires, nil},
		{"past the end by the skew allowed", good, l.Expires.Add(capacity.MaxClockSkew), nil},
		{"past the end by more: a replay", good, l.Expires.Add(capacity.MaxClockSkew + time.Millisecond), capacity.ErrExpired},
		{"before it can have been given", good, capacitytest.Epoch.Add(-capacity.MaxClockSkew - time.Millisecond), capacity.ErrFromFuture},
		{"tampered with", flipped, capacitytest.Epoch, capacity.ErrForged},
		{"signed by someone else", sealRaw(t, leaseKind.label, leaseProto(t), capacitytest.Key(t, "from")), capacitytest.Epoch, capacity.ErrForged},
		{"a ticket", sealRaw(t, ticketKind.label, ticketProto(t), key), capacitytest.Epoch, capacity.ErrForged},
		{"nothing", nil, capacitytest.Epoch, capacity.ErrMalformed},
		{"far too long", make([]byte, leaseKind.limit+1), capacitytest.Epoch, capacity.ErrTooLarge},
		{"without an ID", with(func(m *pb.Lease) { m.Id = "" }), capacitytest.Epoch, capacity.ErrMalformed},
		{"with an ID too long", with(func(m *pb.Lease) { m.Id = strings.Repeat("i", maxID+1) }), capacitytest.Epoch, capacity.ErrMalformed},
		{"with an ID that breaks lines", with(func(m *pb.Lease) { m.Id = "a\nb" }), capacitytest.Epoch, capacity.ErrMalformed},
		{"without a target", with(func(m *pb.Lease) { m.Target = nil }), capacitytest.Epoch, capacity.ErrMalformed},
		{"without a holder", with(func(m *pb.Lease) { m.From = nil }), capacitytest.Epoch, capacity.ErrMalformed},
		{"for an unknown purpose", with(func(m *pb.Lease) { m.Need.Purpose = 3 }), capacitytest.Epoch, capacity.ErrMalformed},
		{"for a stream that cannot be", with(func(m *pb.Lease) { m.Need.Stream = "//" }), capacitytest.Epoch, capacity.ErrMalformed},
		{"for an uplink that would turn negative", with(func(m *pb.Lease) { m.Need.Uplink = math.MaxUint64 }), capacitytest.Epoch, capacity.ErrMalformed},
		{"for packets beyond reason", with(func(m *pb.Lease) { m.Need.Packets = maxNeed + 1 }), capacitytest.Epoch, capacity.ErrMalformed},
		{"for a region too long", with(func(m *pb.Lease) { m.Need.Region = strings.Repeat("r", capacity.MaxLabel+1) }), capacitytest.Epoch, capacity.ErrMalformed},
		{"without an end", with(func(m *pb.Lease) { m.Expires = 0 }), capacitytest.Epoch, capacity.ErrMalformed},
		{"with an end that would wrap around", with(func(m *pb.Lease) { m.Expires = math.MaxUint64 }), capacitytest.Epoch, capacity.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := OpenLease(tt.sealed, tt.now)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			want := capacity.Lease{}
			if tt.want == nil {
				want = l
			}
			if got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestSealLeaseRefusesWhatOpenLeaseWould(t *testing.T) {
	if _, err := SealLease(capacitytest.Lease(t), capacitytest.Key(t, "from")); !errors.Is(err, capacity.ErrForged) {
		t.Errorf("by another key: %v", err)
	}
	l := capacitytest.Lease(t)
	l.Need.Uplink = -1
	if _, err := SealLease(l, capacitytest.Key(t, "target")); !errors.Is(err, capacity.ErrMalformed) {
		t.Errorf("for a negative uplink: %v", err)
	}
}

func TestOpenTicket(t *testing.T) {
	tk := capacitytest.Ticket(t)
	key := capacitytest.Key(t, "from")
	good, err := SealTicket(tk, key)
	if err != nil {
		t.Fatal(err)
	}
	text := func(m proto.Message, l label, name string) string {
		return ticketText.EncodeToString(sealRaw(t, l, m, capacitytest.Key(t, name)))
	}
	with := func(change func(*pb.Ticket)) string {
		m := ticketProto(t)
		change(m)
		return text(m, ticketKind.label, "from")
	}
	last := good[len(good)-5]
	flipped := good[:len(good)-5] + string(last^1) + good[len(good)-4:]
	target := tk.Target
	for _, tt := range []struct {
		name   string
		ticket string
		self   peer.ID
		now    time.Time
		want   error
	}{
		{"when given", good, target, capacitytest.Epoch, nil},
		{"at the end", good, target, tk.Expires, nil},
		{"past the end by the skew allowed", good, target, tk.Expires.Add(capacity.MaxClockSkew), nil},
		{"past the end by more: a replay", good, target, tk.Expires.Add(capacity.MaxClockSkew + time.Millisecond), capacity.ErrExpired},
		{"shown to another node: a replay", good, capacitytest.ID(t, "source"), capacitytest.Epoch, capacity.ErrWrongTarget},
		{"good for too long", with(func(m *pb.Ticket) { m.Expires += uint64(time.Hour.Milliseconds()) }), target, capacitytest.Epoch, capacity.ErrFromFuture},
		{"tampered with", flipped, target, capacitytest.Epoch, capacity.ErrForged},
		{"signed by the viewer", text(ticketProto(t), ticketKind.label, "viewer"), target, capacitytest.Epoch, capacity.ErrForged},
		{"a lease", text(leaseProto(t), leaseKind.label, "target"), target, capacitytest.Epoch, capacity.ErrForged},
		{"nothing", "", target, capacitytest.Epoch, capacity.ErrMalformed},
		{"not base64", "!" + good[1:], target, capacitytest.Epoch, capacity.ErrMalformed},
		{"padded", good + "==", target, capacitytest.Epoch, capacity.ErrMalformed},
		{"cut short", good[:len(good)/2], target, capacitytest.Epoch, capacity.ErrMalformed},
		{"far too long", strings.Repeat("A", MaxTicketSize+1), target, capacitytest.Epoch, capacity.ErrTooLarge},
		{"without a lease", with(func(m *pb.Ticket) { m.Lease = "" }), target, capacitytest.Epoch, capacity.ErrMalformed},
		{"without a stream", with(func(m *pb.Ticket) { m.Stream = "" }), target, capacitytest.Epoch, capacity.ErrMalformed},
		{"for a cascade", with(func(m *pb.Ticket) { m.Purpose = pb.Purpose_CASCADE }), target, capacitytest.Epoch, capacity.ErrMalformed},
		{"for an unknown purpose", with(func(m *pb.Ticket) { m.Purpose = -1 }), target, capacitytest.Epoch, capacity.ErrMalformed},
		{"to publish with a source", with(func(m *pb.Ticket) { m.Purpose = pb.Purpose_PUBLISH }), target, capacitytest.Epoch, capacity.ErrMalformed},
		{"with too many addresses", with(func(m *pb.Ticket) {
			m.SourceAddrs = slices.Repeat([][]byte{multiaddr.StringCast("/ip4/1.2.3.4").Bytes()}, capacity.MaxAddrs+1)
		}), target, capacitytest.Epoch, capacity.ErrMalformed},
		{"with an address that is none", with(func(m *pb.Ticket) { m.SourceAddrs = [][]byte{{0xff}} }), target, capacitytest.Epoch, capacity.ErrMalformed},
		{"with an end that would wrap around", with(func(m *pb.Ticket) { m.Expires = math.MaxUint64 }), target, capacitytest.Epoch, capacity.ErrMalformed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := OpenTicket(tt.ticket, tt.self, tt.now)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			want := capacity.Ticket{}
			if tt.want == nil {
				want = tk
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		})
	}
}

func TestTicketsFitInAURL(t *testing.T) {
	tk := capacitytest.Ticket(t)
	tk.Stream = strings.Repeat("s", capacity.MaxStreamName)
	tk.SourceAddrs = slices.Repeat([]multiaddr.Multiaddr{multiaddr.StringCast("/ip6/2001:db8::7/udp/4001/quic-v1")}, capacity.MaxAddrs)
	s, err := SealTicket(tk, capacitytest.Key(t, "from"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(s, "+/=&?% ") {
		t.Errorf("%q needs escaping", s)
	}
	if _, err := OpenTicket(s, tk.Target, capacitytest.Epoch); err != nil {
		t.Error(err)
	}

	tk.SourceAddrs = slices.Repeat([]multiaddr.Multiaddr{multiaddr.StringCast("/dns/" + strings.Repeat("d", 100) + "/tcp/1")}, capacity.MaxAddrs)
	if s, err := SealTicket(tk, capacitytest.Key(t, "from")); !errors.Is(err, capacity.ErrTooLarge) {
		t.Errorf("%d bytes, %v, want too large", len(s), err)
	}
}

// A valid trace travels in a ticket if there is room. An invalid trace, or a
// lack of room, is no reason to have no ticket.
func TestTicketWithTrace(t *testing.T) {
	key, wire := capacitytest.Key(t, "from"), tracing.ToWire(tracing.Begin(t.Context()))
	tk := capacitytest.Ticket(t)
	open := func() ([]byte, string) {
		t.Helper()
		s, err := SealTicket(tk, key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := OpenTicket(s, tk.Target, capacitytest.Epoch)
		if err != nil {
			t.Fatal(err)
		}
		return got.Trace, s
	}
	tk.Trace = wire
	if got, _ := open(); !bytes.Equal(got, wire) {
		t.Errorf("%x came of %x", got, wire)
	}
	tk.Trace = make([]byte, tracing.MaxWire+1)
	if got, _ := open(); got != nil {
		t.Errorf("%x came of what is no trace", got)
	}
	tk.Trace = nil
	for length := 1; ; length++ { // until there is no room for a trace
		tk.Stream = strings.Repeat("s", min(length, capacity.MaxStreamName))
		tk.SourceAddrs = slices.Repeat([]multiaddr.Multiaddr{multiaddr.StringCast("/dns/" + strings.Repeat("d", length) + "/tcp/1")}, capacity.MaxAddrs)
		if _, s := open(); len(s) > MaxTicketSize-len(wire) {
			break
		}
	}
	tk.Trace = wire
	if got, _ := open(); got != nil {
		t.Errorf("%x came where there is no room", got)
	}
}

func TestTicketToPublishHasNoSource(t *testing.T) {
	tk := capacitytest.Ticket(t)
	tk.Purpose, tk.Source, tk.SourceAddrs = capacity.Publish, "", nil
	s, err := SealTicket(tk, capacitytest.Key(t, "from"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenTicket(s, tk.Target, capacitytest.Epoch); err != nil || !reflect.DeepEqual(got, tk) {
		t.Errorf("got %+v, %v, want %+v", got, err, tk)
	}
}

func FuzzOpenLease(f *testing.F) {
	good, err := SealLease(capacitytest.Lease(f), capacitytest.Key(f, "target"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	payload, err := proto.Marshal(leaseProto(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	key, id := capacitytest.Key(f, "target"), []byte(capacitytest.ID(f, "target"))
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if l, err := OpenLease(sealed, capacitytest.Epoch); err == nil {
			if err := l.Check(); err != nil {
				t.Fatalf("opened, but %v", err)
			}
		}
		// Sign any payload, because the fuzzer cannot sign.
		var m pb.Lease
		if len(sealed) > leaseKind.limit || proto.Unmarshal(sealed, &m) != nil {
			return
		}
		m.Target = id
		l, err := OpenLease(sealRaw(t, leaseKind.label, &m, key), capacitytest.Epoch)
		if err != nil {
			return
		}
		again, err := SealLease(l, key)
		if err != nil {
			t.Fatalf("what was opened cannot be sealed: %v", err)
		}
		if same, err := OpenLease(again, capacitytest.Epoch); err != nil || same != l {
			t.Fatalf("sealed again %+v, %v, want %+v", same, err, l)
		}
	})
}

func FuzzOpenTicket(f *testing.F) {
	good, err := SealTicket(capacitytest.Ticket(f), capacitytest.Key(f, "from"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	payload, err := proto.Marshal(ticketProto(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(payload))
	f.Add("")
	key, from, self := capacitytest.Key(f, "from"), []byte(capacitytest.ID(f, "from")), capacitytest.ID(f, "target")
	f.Fuzz(func(t *testing.T, s string) {
		if tk, err := OpenTicket(s, self, capacitytest.Epoch); err == nil {
			if err := tk.Check(); err != nil || tk.Target != self {
				t.Fatalf("opened %+v, but %v", tk, err)
			}
		}
		var m pb.Ticket
		if len(s) > MaxTicketSize || proto.Unmarshal([]byte(s), &m) != nil {
			return
		}
		m.From, m.Target = from, []byte(self)
		tk, err := OpenTicket(ticketText.EncodeToString(sealRaw(t, ticketKind.label, &m, key)), self, capacitytest.Epoch)
		if err != nil {
			return
		}
		if len(tk.Trace) > tracing.MaxWire {
			t.Fatalf("a trace of %d bytes", len(tk.Trace))
		}
		tk.Trace = nil // it is left out if there is no room
		again, err := SealTicket(tk, key)
		if errors.Is(err, capacity.ErrTooLarge) {
			return // unusual encodings of the same values can be shorter
		}
		if err != nil {
			t.Fatalf("what was opened cannot be sealed: %v", err)
		}
		if same, err := OpenTicket(again, self, capacitytest.Epoch); err != nil || !reflect.DeepEqual(same, tk) {
			t.Fatalf("sealed again %+v, %v, want %+v", same, err, tk)
		}
	})
}
