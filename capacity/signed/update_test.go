package signed

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"weir/capacity"
	"weir/capacity/capacitytest"
	"weir/capacity/pb"
)

// later is r some seconds on: with other numbers, and the same values in the
// fields that an update cannot change.
func later(r capacity.Record) capacity.Record {
	r.Seq += 5_003
	r.Issued = r.Issued.Add(5 * time.Second)
	r.Uplink.Used += 7_000_000
	r.Downlink.Used, r.Packets.Used, r.Sessions.Used, r.Streams.Used = 0, 41_000, 64, 13
	r.Reserved, r.CPU, r.Delay, r.State = 0, 0.3301, 51234*time.Microsecond, capacity.Full
	if r.Carries != nil {
		c := *r.Carries
		c.Viewers, c.Children, c.ParentRTT = 41, 4, 13*time.Millisecond
		r.Carries = &c
	}
	return r
}

// mustSealUpdate updates sealed with r, without the coordinate.
func mustSealUpdate(tb testing.TB, sealed []byte, r capacity.Record, name string) []byte {
	tb.Helper()
	b, err := SealUpdate(capacity.Record{Coordinate: r.Coordinate}, sealed, r, capacitytest.Key(tb, name))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestUpdatedRecordOpensAsWhatItSaysNow(t *testing.T) {
	plain := capacitytest.Record(t, "node")
	carrying := plain
	carrying.Carries = capacitytest.StreamInfo(t, plain.Node)
	for name, base := range map[string]capacity.Record{"of a node": plain, "of a relay": carrying} {
		t.Run(name, func(t *testing.T) {
			key := capacitytest.Key(t, "node")
			sealed := mustSeal(t, base, key)
			base, err := OpenRecord(sealed, capacitytest.Epoch) // with coordinates as on the wire
			if err != nil {
				t.Fatal(err)
			}
			want := later(base)
			if !Updatable(&base, &want) {
				t.Fatal("not updatable")
			}
			sealedUpdate := mustSealUpdate(t, sealed, want, "node")
			if len(sealedUpdate) > len(sealed)/3 {
				t.Errorf("%d bytes, of a record of %d", len(sealedUpdate), len(sealed))
			}
			r, resealed, err := ApplyUpdate(base, sealed, sealedUpdate)
			if err != nil || !reflect.DeepEqual(r, want) {
				t.Fatalf("ApplyUpdate = %+v, %v, want %+v", r, err, want)
			}
			if got, err := OpenRecord(resealed, capacitytest.Epoch); err != nil || !reflect.DeepEqual(got, want) {
				t.Fatalf("Open = %+v, %v, want %+v", got, err, want)
			}
			if c := base.Carries; c != nil && c.Viewers != 40 {
				t.Errorf("the base has changed: %+v", c)
			}
			// The coordinate of a node that has moved is in the update.
			moved := want
			moved.Coordinate = base.Coordinate.Clone()
			moved.Coordinate.Vec[2] = 0.75
			sealedUpdate, err = SealUpdate(base, sealed, moved, key)
			if err != nil || len(sealedUpdate) > 180 {
				t.Fatalf("%d bytes, %v", len(sealedUpdate), err)
			}
			if r, _, err := ApplyUpdate(base, sealed, sealedUpdate); err != nil || !reflect.DeepEqual(r, moved) {
				t.Errorf("ApplyUpdate = %+v, %v, want %+v", r, err, moved)
			}
			sealedUpdate = mustSealUpdate(t, sealed, want, "node")
			// A second update replaces the first without a trace.
			next := later(want)
			r, again, err := ApplyUpdate(r, resealed, mustSealUpdate(t, resealed, next, "node"))
			if err != nil || !reflect.DeepEqual(r, next) || len(again) > len(resealed)+8 {
				t.Errorf("updated twice: %+v, %v, %d bytes after %d, want %+v", r, err, len(again), len(resealed), next)
			}
			// An old update is still validly signed: the holder of records
			// compares sequence numbers.
			if r, _, err := ApplyUpdate(r, again, sealedUpdate); err != nil || r.Seq != want.Seq {
				t.Errorf("the first once more: %d, %v, want %d", r.Seq, err, want.Seq)
			}
			// A record past the update's time is expired, whatever the base's
			// time is.
			if _, err := OpenRecord(resealed, want.Expires().Add(capacity.MaxClockSkew+time.Second)); !errors.Is(err, capacity.ErrExpired) {
				t.Errorf("Open, later: %v", err)
			}
			if _, err := OpenRecord(resealed, base.Expires().Add(capacity.MaxClockSkew+time.Second)); err != nil {
				t.Errorf("Open, when the base has run out: %v", err)
			}
		})
	}
}

func TestUpdateThatIsRefused(t *testing.T) {
	base := capacitytest.Record(t, "node")
	sealed := mustSeal(t, base, capacitytest.Key(t, "node"))
	other := base
	other.Seq++
	good := mustSealUpdate(t, sealed, later(base), "node")
	signed := func(m *pb.Update) []byte {
		body, err := payload{msg: m}.MarshalRecord()
		if err != nil {
			t.Fatal(err)
		}
		signature, err := capacitytest.Key(t, "node").Sign(updateSigned(sealed, body))
		if err != nil {
			t.Fatal(err)
		}
		return append(body, signature...)
	}
	seq := base.Seq + 1
	stranger := capacitytest.Record(t, "stranger")
	for name, c := range map[string]struct {
		sealedUpdate []byte
		want         error
	}{
		"nothing":                        {nil, capacity.ErrMalformed},
		"shorter than a signature":       {good[:signatureSize-1], capacity.ErrMalformed},
		"too long":                       {append(bytes.Repeat([]byte{0}, maxUpdate), good...), capacity.ErrTooLarge},
		"of another record of the node":  {mustSealUpdate(t, mustSeal(t, other, capacitytest.Key(t, "node")), later(base), "node"), capacity.ErrForged},
		"signed by someone else":         {mustSealUpdate(t, sealed, later(stranger), "stranger"), capacity.ErrForged},
		"changed on the way":             {append([]byte{good[0], good[1] ^ 1}, good[2:]...), capacity.ErrForged},
		"no sequence number":             {signed(&pb.Update{}), capacity.ErrMalformed},
		"more than there is":             {signed(&pb.Update{Seq: seq, Uplink: capacity.MaxQuantity + 1}), capacity.ErrMalformed},
		"more viewers than there can be": {signed(&pb.Update{Seq: seq, Viewers: capacity.MaxCount + 1}), capacity.ErrMalformed},
		"no state there is":              {signed(&pb.Update{Seq: seq, State: 3}), capacity.ErrMalformed},
		"a CPU beyond all cores":         {signed(&pb.Update{Seq: seq, Cpu: 1 << 30}), capacity.ErrMalformed},
		"nowhere":                        {signed(&pb.Update{Seq: seq, Coordinate: &pb.Coordinate{Vec: []float32{1}}}), capacity.ErrMalformed},
		"before time began":              {signed(&pb.Update{Seq: 1, Issued: -2}), capacity.ErrMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := ApplyUpdate(base, sealed, c.sealedUpdate); !errors.Is(err, c.want) {
				t.Errorf("ApplyUpdate: %v, want %v", err, c.want)
			}
			b := protowire.AppendTag(bytes.Clone(sealed), updateField, protowire.BytesType)
			if _, err := OpenRecord(protowire.AppendBytes(b, c.sealedUpdate), capacitytest.Epoch); !errors.Is(err, c.want) {
				t.Errorf("Open: %v, want %v", err, c.want)
			}
		})
	}
	_, resealed, err := ApplyUpdate(base, sealed, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenRecord(append(resealed, resealed[len(sealed):]...), capacitytest.Epoch); !errors.Is(err, capacity.ErrMalformed) {
		t.Errorf("two updates: %v", err)
	}
	long := base
	long.URL = "https://" + string(bytes.Repeat([]byte("a"), 200)) + ".example"
	long.Carries = capacitytest.StreamInfo(t, base.Node)
	long.Carries.Stream = string(bytes.Repeat([]byte("s"), capacity.MaxStreamName))
	long.Carries.Tracks = []string{string(bytes.Repeat([]byte("t"), 31)), string(bytes.Repeat([]byte("u"), 31)), string(bytes.Repeat([]byte("v"), 31))}
	for mustLen := len(mustSeal(t, long, capacitytest.Key(t, "node"))); mustLen < MaxRecordSize-80; mustLen += 9 {
		long.Features = append(long.Features, "feature")
	}
	sealed = mustSeal(t, long, capacitytest.Key(t, "node"))
	if _, _, err := ApplyUpdate(long, sealed, mustSealUpdate(t, sealed, later(long), "node")); !errors.Is(err, capacity.ErrTooLarge) {
		t.Errorf("a record of %d bytes updated: %v, want %v", len(sealed), err, capacity.ErrTooLarge)
	}
	if _, err := SealUpdate(base, sealed, later(base), capacitytest.Key(t, "stranger")); !errors.Is(err, capacity.ErrForged) {
		t.Errorf("SealUpdate with another's key: %v", err)
	}
}

func TestWhatCannotBeUpdated(t *testing.T) {
	base := capacitytest.Record(t, "node")
	base.Carries = capacitytest.StreamInfo(t, base.Node)
	for name, change := range map[string]func(*capacity.Record){
		"a limit":     func(r *capacity.Record) { r.Sessions.Limit++ },
		"an address":  func(r *capacity.Record) { r.Addrs = r.Addrs[:1] },
		"its policy":  func(r *capacity.Record) { r.Policy++ },
		"its TTL":     func(r *capacity.Record) { r.TTL = capacity.MaxTTL },
		"its stream":  func(r *capacity.Record) { r.Carries.Stream = "other" },
		"its path":    func(r *capacity.Record) { r.Carries.Path = r.Carries.Path[1:] },
		"that it has": func(r *capacity.Record) { r.Carries = nil },
		"its URL":     func(r *capacity.Record) { r.URL = "" },
	} {
		r := later(base)
		change(&r)
		if Updatable(&base, &r) {
			t.Errorf("%s has changed: updatable", name)
		}
	}
	r := later(base)
	r.Coordinate = base.Coordinate.Clone()
	r.Coordinate.Height = 0.01
	if !Updatable(&base, &r) {
		t.Error("another coordinate: not updatable")
	}
	if r.Coordinate = nil; Updatable(&base, &r) {
		t.Error("no coordinate any more: updatable")
	}
}

// A node's report of its use changes a record's numbers, not its node and time.
func TestUse(t *testing.T) {
	base := capacitytest.Record(t, "node")
	now := later(base)
	now.Coordinate = nil // like a node's sample
	got, err := WithLoad(base, EncodeLoad(&now))
	want := now
	want.Seq, want.Issued, want.Coordinate = base.Seq, base.Issued, base.Coordinate
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("Using = %+v, %v, want %+v", got, err, want)
	}
	for name, use := range map[string][]byte{"garbage": {0xff}, "nothing": {}, "too much": bytes.Repeat([]byte{8, 1}, maxUpdate)} {
		if _, err := WithLoad(base, use); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}

func FuzzUse(f *testing.F) {
	base := capacitytest.Record(f, "node")
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

func FuzzOpenUpdated(f *testing.F) {
	base := capacitytest.Record(f, "node")
	sealed := mustSeal(f, base, capacitytest.Key(f, "node"))
	good := mustSealUpdate(f, sealed, later(base), "node")
	f.Add(good)
	f.Add(good[:signatureSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealedUpdate []byte) {
		r, resealed, err := ApplyUpdate(base, sealed, sealedUpdate)
		if err != nil {
			return
		}
		if !bytes.Equal(sealedUpdate, good) {
			t.Fatalf("%x is forged, but opens as %+v", sealedUpdate, r)
		}
		if _, err := OpenRecord(resealed, capacitytest.Epoch); err != nil {
			t.Fatal(err)
		}
	})
}
