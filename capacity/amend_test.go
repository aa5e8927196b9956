package capacity

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"weir/capacity/pb"
)

// later is r some seconds on: with other numbers, and what cannot be amended as
// it was.
func later(r Record) Record {
	r.Seq += 5_003
	r.Issued = r.Issued.Add(5 * time.Second)
	r.Uplink.Used += 7_000_000
	r.Downlink.Used, r.Packets.Used, r.Sessions.Used, r.Streams.Used = 0, 41_000, 64, 13
	r.Reserved, r.CPU, r.State = 0, 0.3301, Full
	if r.Carries != nil {
		c := *r.Carries
		c.Viewers, c.Children, c.ParentRTT = 41, 4, 13*time.Millisecond
		r.Carries = &c
	}
	return r
}

// mustSealAmendment amends sealed with r, of which the coordinate is left out.
func mustSealAmendment(tb testing.TB, sealed []byte, r Record, name string) []byte {
	tb.Helper()
	b, err := SealAmendment(Record{Coordinate: r.Coordinate}, sealed, r, keyOf(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestAmendedRecordOpensAsWhatItSaysNow(t *testing.T) {
	plain := typicalRecord(t, "node")
	carrying := plain
	carrying.Carries = typicalCarriage(t, plain.Node)
	for name, base := range map[string]Record{"of a node": plain, "of a relay": carrying} {
		t.Run(name, func(t *testing.T) {
			key := keyOf(t, "node")
			sealed := mustSeal(t, base, key)
			base, err := Open(sealed, epoch) // with coordinates as on the wire
			if err != nil {
				t.Fatal(err)
			}
			want := later(base)
			if !Amendable(&base, &want) {
				t.Fatal("not amendable")
			}
			amendment := mustSealAmendment(t, sealed, want, "node")
			if len(amendment) > len(sealed)/3 {
				t.Errorf("%d bytes, of a record of %d", len(amendment), len(sealed))
			}
			r, resealed, err := Amend(base, sealed, amendment)
			if err != nil || !reflect.DeepEqual(r, want) {
				t.Fatalf("Amend = %+v, %v, want %+v", r, err, want)
			}
			if got, err := Open(resealed, epoch); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("Open = %+v, %v, want %+v", got, err, want)
			}
			if c := base.Carries; c != nil && c.Viewers != 40 {
				t.Errorf("the base has changed: %+v", c)
			}
			// A node that has moved says so.
			moved := want
			moved.Coordinate = base.Coordinate.Clone()
			moved.Coordinate.Vec[2] = 0.75
			amendment, err = SealAmendment(base, sealed, moved, key)
			if err != nil || len(amendment) > 180 {
				t.Fatalf("%d bytes, %v", len(amendment), err)
			}
			if r, _, err := Amend(base, sealed, amendment); err != nil || !reflect.DeepEqual(r, moved) {
				t.Errorf("Amend = %+v, %v, want %+v", r, err, moved)
			}
			amendment = mustSealAmendment(t, sealed, want, "node")
			// Amended once more, it is as if the first had never been.
			next := later(want)
			r, again, err := Amend(r, resealed, mustSealAmendment(t, resealed, next, "node"))
			if err != nil || !reflect.DeepEqual(r, next) || len(again) > len(resealed)+8 {
				t.Errorf("amended twice: %+v, %v, %d bytes after %d, want %+v", r, err, len(again), len(resealed), next)
			}
			// An old amendment still signs what it says: whoever keeps records
			// compares sequence numbers.
			if r, _, err := Amend(r, again, amendment); err != nil || r.Seq != want.Seq {
				t.Errorf("the first once more: %d, %v, want %d", r.Seq, err, want.Seq)
			}
			// What is past the amendment's time is expired, whatever the base says.
			if _, err := Open(resealed, want.Expires().Add(MaxClockSkew+time.Second)); !errors.Is(err, ErrExpired) {
				t.Errorf("Open, later: %v", err)
			}
			if _, err := Open(resealed, base.Expires().Add(MaxClockSkew+time.Second)); err != nil {
				t.Errorf("Open, when the base has run out: %v", err)
			}
		})
	}
}

func TestAmendmentThatIsRefused(t *testing.T) {
	base := typicalRecord(t, "node")
	sealed := mustSeal(t, base, keyOf(t, "node"))
	other := base
	other.Seq++
	good := mustSealAmendment(t, sealed, later(base), "node")
	signed := func(m *pb.Amendment) []byte {
		body, err := payload{msg: m}.MarshalRecord()
		if err != nil {
			t.Fatal(err)
		}
		signature, err := keyOf(t, "node").Sign(amendmentSigned(sealed, body))
		if err != nil {
			t.Fatal(err)
		}
		return append(body, signature...)
	}
	seq := base.Seq + 1
	stranger := typicalRecord(t, "stranger")
	for name, c := range map[string]struct {
		amendment []byte
		want      error
	}{
		"nothing":                        {nil, ErrMalformed},
		"shorter than a signature":       {good[:signatureSize-1], ErrMalformed},
		"too long":                       {append(bytes.Repeat([]byte{0}, maxAmendment), good...), ErrTooLarge},
		"of another record of the node":  {mustSealAmendment(t, mustSeal(t, other, keyOf(t, "node")), later(base), "node"), ErrForged},
		"signed by someone else":         {mustSealAmendment(t, sealed, later(stranger), "stranger"), ErrForged},
		"changed on the way":             {append([]byte{good[0], good[1] ^ 1}, good[2:]...), ErrForged},
		"no sequence number":             {signed(&pb.Amendment{}), ErrMalformed},
		"more than there is":             {signed(&pb.Amendment{Seq: seq, Uplink: maxQuantity + 1}), ErrMalformed},
		"more viewers than there can be": {signed(&pb.Amendment{Seq: seq, Viewers: maxCount + 1}), ErrMalformed},
		"no state there is":              {signed(&pb.Amendment{Seq: seq, State: 3}), ErrMalformed},
		"a CPU beyond all cores":         {signed(&pb.Amendment{Seq: seq, Cpu: 1 << 30}), ErrMalformed},
		"nowhere":                        {signed(&pb.Amendment{Seq: seq, Coordinate: &pb.Coordinate{Vec: []float32{1}}}), ErrMalformed},
		"before time began":              {signed(&pb.Amendment{Seq: 1, Issued: -2}), ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := Amend(base, sealed, c.amendment); !errors.Is(err, c.want) {
				t.Errorf("Amend: %v, want %v", err, c.want)
			}
			b := protowire.AppendTag(bytes.Clone(sealed), amendmentField, protowire.BytesType)
			if _, err := Open(protowire.AppendBytes(b, c.amendment), epoch); !errors.Is(err, c.want) {
				t.Errorf("Open: %v, want %v", err, c.want)
			}
		})
	}
	_, resealed, err := Amend(base, sealed, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(append(resealed, resealed[len(sealed):]...), epoch); !errors.Is(err, ErrMalformed) {
		t.Errorf("two amendments: %v", err)
	}
	long := base
	long.URL = "https://" + string(bytes.Repeat([]byte("a"), 200)) + ".example"
	long.Carries = typicalCarriage(t, base.Node)
	long.Carries.Stream = string(bytes.Repeat([]byte("s"), MaxStreamName))
	long.Carries.Tracks = []string{string(bytes.Repeat([]byte("t"), 31)), string(bytes.Repeat([]byte("u"), 31)), string(bytes.Repeat([]byte("v"), 31))}
	for mustLen := len(mustSeal(t, long, keyOf(t, "node"))); mustLen < MaxRecordSize-80; mustLen += 9 {
		long.Features = append(long.Features, "feature")
	}
	sealed = mustSeal(t, long, keyOf(t, "node"))
	if _, _, err := Amend(long, sealed, mustSealAmendment(t, sealed, later(long), "node")); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a record of %d bytes amended: %v, want %v", len(sealed), err, ErrTooLarge)
	}
	if _, err := SealAmendment(base, sealed, later(base), keyOf(t, "stranger")); !errors.Is(err, ErrForged) {
		t.Errorf("SealAmendment with another's key: %v", err)
	}
}

func TestWhatCannotBeAmended(t *testing.T) {
	base := typicalRecord(t, "node")
	base.Carries = typicalCarriage(t, base.Node)
	for name, change := range map[string]func(*Record){
		"a limit":     func(r *Record) { r.Sessions.Limit++ },
		"an address":  func(r *Record) { r.Addrs = r.Addrs[:1] },
		"its policy":  func(r *Record) { r.Policy++ },
		"its TTL":     func(r *Record) { r.TTL = MaxTTL },
		"its stream":  func(r *Record) { r.Carries.Stream = "other" },
		"its path":    func(r *Record) { r.Carries.Path = r.Carries.Path[1:] },
		"that it has": func(r *Record) { r.Carries = nil },
		"its URL":     func(r *Record) { r.URL = "" },
	} {
		r := later(base)
		change(&r)
		if Amendable(&base, &r) {
			t.Errorf("%s has changed: amendable", name)
		}
	}
	r := later(base)
	r.Coordinate = base.Coordinate.Clone()
	r.Coordinate.Height = 0.01
	if !Amendable(&base, &r) {
		t.Error("another coordinate: not amendable")
	}
	if r.Coordinate = nil; Amendable(&base, &r) {
		t.Error("no coordinate any more: amendable")
	}
}

// What a node says of its use changes a record's numbers, not whose it is or when.
func TestUse(t *testing.T) {
	base := typicalRecord(t, "node")
	now := later(base)
	now.Coordinate = nil // as a node's sample has none
	got, err := WithLoad(base, EncodeLoad(&now))
	want := now
	want.Seq, want.Issued, want.Coordinate = base.Seq, base.Issued, base.Coordinate
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Using = %+v, %v, want %+v", got, err, want)
	}
	for name, use := range map[string][]byte{"garbage": {0xff}, "nothing": {}, "too much": bytes.Repeat([]byte{8, 1}, maxAmendment)} {
		if _, err := WithLoad(base, use); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func FuzzUse(f *testing.F) {
	base := typicalRecord(f, "node")
	now := later(base)
	f.Add(EncodeLoad(&now))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, use []byte) {
		r, err := WithLoad(base, use)
		if err != nil {
			return
		}
		if err := r.Check(); err != nil || r.Node != base.Node || r.Seq != base.Seq || r.Uplink.Limit != base.Uplink.Limit {
			t.Fatalf("%+v: %v", r, err)
		}
	})
}

func FuzzOpenAmended(f *testing.F) {
	base := typicalRecord(f, "node")
	sealed := mustSeal(f, base, keyOf(f, "node"))
	good := mustSealAmendment(f, sealed, later(base), "node")
	f.Add(good)
	f.Add(good[:signatureSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, amendment []byte) {
		r, resealed, err := Amend(base, sealed, amendment)
		if err != nil {
			return
		}
		if !bytes.Equal(amendment, good) {
			t.Fatalf("%x is forged, but opens as %+v", amendment, r)
		}
		if _, err := Open(resealed, epoch); err != nil {
			t.Fatal(err)
		}
	})
}
