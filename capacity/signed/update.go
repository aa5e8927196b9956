package signed

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"reflect"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"weir/capacity"
	"weir/capacity/pb"
)

const (
	// maxUpdate bounds an update, in bytes.
	maxUpdate = 192

	updateDomain  = "weir-amendment"
	updateField   = 15 // number in the envelope's message, which uses 1 to 5
	signatureSize = 64 // Ed25519
)

// Updatable reports whether r differs from base, a record of the same node,
// only in the fields that an update contains: its load, its state, and its
// coordinate.
func Updatable(base, r *capacity.Record) bool {
	b := *base
	takeLoad(&b, r)
	b.Coordinate = r.Coordinate
	return reflect.DeepEqual(&b, r) && (r.Coordinate != nil || base.Coordinate == nil)
}

// takeLoad copies the fields that an update contains from s.
func takeLoad(r, s *capacity.Record) {
	r.Seq, r.Issued, r.State = s.Seq, s.Issued, s.State
	r.Uplink.Used, r.Downlink.Used, r.Packets.Used = s.Uplink.Used, s.Downlink.Used, s.Packets.Used
	r.Sessions.Used, r.Streams.Used = s.Sessions.Used, s.Streams.Used
	r.Reserved, r.CPU, r.Delay = s.Reserved, s.CPU, s.Delay
	if s.Coordinate != nil {
		r.Coordinate = s.Coordinate
	}
	if r.Carries != nil && s.Carries != nil {
		c := *r.Carries
		c.Viewers, c.Children, c.ParentRTT = s.Carries.Viewers, s.Carries.Children, s.Carries.ParentRTT
		r.Carries = &c
	}
}

// SealUpdate signs the changed fields of r, where base is the record that
// sealed opens as, and r is [Updatable]. An update in sealed is replaced by
// this one. It has about 100 bytes, and 50 more if r has another coordinate.
func SealUpdate(base capacity.Record, sealed []byte, r capacity.Record, key crypto.PrivKey) ([]byte, error) {
	if !r.Node.MatchesPrivateKey(key) {
		return nil, fmt.Errorf("seal update: %w: the key is not that of %s", capacity.ErrForged, r.Node)
	}
	if err := r.Check(); err != nil {
		return nil, fmt.Errorf("seal update: %w", err)
	}
	envelope, _, err := splitUpdate(sealed)
	if err != nil {
		return nil, fmt.Errorf("seal update: %w", err)
	}
	if reflect.DeepEqual(r.Coordinate, base.Coordinate) {
		r.Coordinate = nil
	}
	body := EncodeLoad(&r)
	signature, err := key.Sign(updateSigned(envelope, body))
	if err != nil {
		return nil, fmt.Errorf("seal update: %w", err)
	}
	return append(body, signature...), nil
}

// EncodeLoad encodes the fields of r that change all the time: an update
// without a signature, for a caller that asks the node itself.
func EncodeLoad(r *capacity.Record) []byte {
	m := &pb.Update{
		Seq:        r.Seq,
		Issued:     int64(uint64(r.Issued.UnixMilli()) - r.Seq),
		Uplink:     uint64(r.Uplink.Used),
		Downlink:   uint64(r.Downlink.Used),
		Packets:    uint64(r.Packets.Used),
		Sessions:   uint64(r.Sessions.Used),
		Streams:    uint64(r.Streams.Used),
		Reserved:   uint64(r.Reserved),
		Cpu:        uint32(math.Round(r.CPU * 1e4)),
		Delay:      uint32(r.Delay.Microseconds()),
		Coordinate: CoordinateToWire(r.Coordinate),
		State:      pb.State(r.State),
	}
	if c := r.Carries; c != nil {
		m.Viewers, m.Children, m.ParentRtt = uint32(c.Viewers), uint32(c.Children), uint32(c.ParentRTT.Microseconds())
	}
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(m) // numbers alone cannot fail
	return b
}

// WithLoad returns r with the load in use, as its node encoded it, but under
// r's own sequence number and time. The error wraps [capacity.ErrTooLarge] or
// [capacity.ErrMalformed].
func WithLoad(r capacity.Record, use []byte) (capacity.Record, error) {
	if len(use) > maxUpdate {
		return capacity.Record{}, fmt.Errorf("%w: %d bytes of use, at most %d", capacity.ErrTooLarge, len(use), maxUpdate)
	}
	seq, issued := r.Seq, r.Issued
	r, err := updated(r, use)
	r.Seq, r.Issued = seq, issued
	return r, err
}

// ApplyUpdate returns base, the record that sealed opens as, with the update,
// and its sealed form, which [OpenRecord] accepts like any other. An update in
// sealed is replaced. base is not changed.
//
// The error wraps [capacity.ErrForged] if the node did not sign this update of
// this record: it may belong to an older one. It wraps [capacity.ErrTooLarge]
// or [capacity.ErrMalformed] if it is no update. ApplyUpdate does not check the
// age; see [capacity.Record.CheckAge].
func ApplyUpdate(base capacity.Record, sealed, update []byte) (capacity.Record, []byte, error) {
	envelope, _, err := splitUpdate(sealed)
	if err != nil {
		return capacity.Record{}, nil, fmt.Errorf("update record: %w", err)
	}
	r, err := verified(base, envelope, update)
	if err != nil {
		return capacity.Record{}, nil, fmt.Errorf("update record: %w", err)
	}
	b := protowire.AppendTag(bytes.Clone(envelope), updateField, protowire.BytesType)
	b = protowire.AppendBytes(b, update)
	if len(b) > MaxRecordSize {
		return capacity.Record{}, nil, fmt.Errorf("update record: %w: %d bytes, at most %d", capacity.ErrTooLarge, len(b), MaxRecordSize)
	}
	return r, b, nil
}

// verified is base, the record in envelope, with an update that its node
// signed.
func verified(base capacity.Record, envelope, update []byte) (capacity.Record, error) {
	if len(update) > maxUpdate {
		return capacity.Record{}, fmt.Errorf("%w: an update of %d bytes, at most %d", capacity.ErrTooLarge, len(update), maxUpdate)
	}
	if len(update) < signatureSize {
		return capacity.Record{}, capacity.Malformed("update", "%d bytes, at least %d", len(update), signatureSize)
	}
	body, signature := update[:len(update)-signatureSize], update[len(update)-signatureSize:]
	key, err := base.Node.ExtractPublicKey()
	if err != nil {
		return capacity.Record{}, capacity.Malformed("update", "signer: %w", err)
	}
	if ok, err := key.Verify(updateSigned(envelope, body), signature); err != nil || !ok {
		return capacity.Record{}, fmt.Errorf("%w: the update's signature does not match this record", capacity.ErrForged)
	}
	return updated(base, body)
}

// updated is r with the fields in body, an encoded update without its
// signature.
func updated(r capacity.Record, body []byte) (capacity.Record, error) {
	var m pb.Update
	if err := proto.Unmarshal(body, &m); err != nil {
		return capacity.Record{}, capacity.Malformed("update", "%w", err)
	}
	if max(m.Viewers, m.Children) > capacity.MaxCount { // they may count no stream
		return capacity.Record{}, capacity.Malformed("update", "a count is more than %d", capacity.MaxCount)
	}
	said := capacity.Record{
		Seq:        m.Seq,
		State:      named[capacity.State](m.State),
		Issued:     timeOf(m.Seq + uint64(m.Issued)),
		Uplink:     capacity.Usage{Used: quantity(m.Uplink)},
		Downlink:   capacity.Usage{Used: quantity(m.Downlink)},
		Packets:    capacity.Usage{Used: quantity(m.Packets)},
		Sessions:   capacity.Usage{Used: quantity(m.Sessions)},
		Streams:    capacity.Usage{Used: quantity(m.Streams)},
		Reserved:   quantity(m.Reserved),
		CPU:        float64(m.Cpu) / 1e4,
		Delay:      time.Duration(m.Delay) * time.Microsecond,
		Coordinate: CoordinateFromWire(m.Coordinate),
		Carries:    &capacity.StreamInfo{Viewers: int(m.Viewers), Children: int(m.Children), ParentRTT: time.Duration(m.ParentRtt) * time.Microsecond},
	}
	takeLoad(&r, &said)
	if err := r.Check(); err != nil {
		return capacity.Record{}, err
	}
	return r, nil
}

func updateSigned(envelope, body []byte) []byte {
	b := make([]byte, 0, len(updateDomain)+len(envelope)+len(body)+8)
	for _, part := range [][]byte{[]byte(updateDomain), envelope, body} {
		b = protowire.AppendBytes(b, part)
	}
	return b
}

// splitUpdate returns the envelope at the beginning of sealed, and the update
// behind it, or nil.
func splitUpdate(sealed []byte) (envelope, update []byte, err error) {
	for rest := sealed; len(rest) > 0; {
		field, kind, n := protowire.ConsumeTag(rest)
		if n < 0 {
			return nil, nil, fmt.Errorf("%w: %w", capacity.ErrMalformed, protowire.ParseError(n))
		}
		if field == updateField && kind == protowire.BytesType {
			b, m := protowire.ConsumeBytes(rest[n:])
			if m < 0 || n+m != len(rest) {
				return nil, nil, fmt.Errorf("%w: %w", capacity.ErrMalformed, errBehind)
			}
			return sealed[:len(sealed)-len(rest)], b, nil
		}
		m := protowire.ConsumeFieldValue(field, kind, rest[n:])
		if m < 0 {
			return nil, nil, fmt.Errorf("%w: %w", capacity.ErrMalformed, protowire.ParseError(m))
		}
		rest = rest[n+m:]
	}
	return sealed, nil, nil
}

var errBehind = errors.New("an update is the last there is, and whole")
