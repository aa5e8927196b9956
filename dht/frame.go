package dht

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"weir/capacity"
)

// The largest messages, in bytes, that a peer may send us. A frame that
// announces more is refused before anything is allocated for it.
const (
	maxRequest        = 96 << 10 // an ADVERTISE of maxEntries records
	maxAdvertiseReply = 32 << 10
	maxQueryReply     = 24 << 10 // queryLimit records, doubts of them, and the rules
	maxFetchReply     = 72 << 10 // fetchLimit records
	maxEvent          = 2 << 10
	maxReserve        = 4 << 10
	maxProvision      = 4 << 10
)

// errOversized means that a peer announced a frame beyond what we accept.
var errOversized = errors.New("frame too large")

// appendFrame appends m behind its length as an unsigned varint.
func appendFrame(b []byte, m proto.Message) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(proto.Size(m)))
	return proto.MarshalOptions{}.MarshalAppend(b, m)
}

// writeFrame writes m in one Write and returns how many bytes that took.
func writeFrame(w io.Writer, m proto.Message) (int, error) {
	b, err := appendFrame(nil, m)
	if err != nil {
		return 0, err
	}
	return w.Write(b)
}

// readFrame reads one frame of at most max bytes into m. Memory grows with
// what has arrived, not with what was announced. It returns the bytes read,
// the length included, and io.EOF only if there was no frame at all.
func readFrame(r *bufio.Reader, max int, m proto.Message) (int, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, err
	}
	if n > uint64(max) {
		return 0, fmt.Errorf("%w: %d bytes announced, at most %d accepted", errOversized, n, max)
	}
	const step = 4 << 10
	b := make([]byte, 0, min(int(n), step))
	for len(b) < int(n) {
		have := len(b)
		want := min(int(n)-have, step)
		b = append(b, make([]byte, want)...)
		if _, err := io.ReadFull(r, b[have:]); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return have, fmt.Errorf("frame of %d bytes: %w", n, err)
		}
	}
	if err := decode(b, m); err != nil {
		return len(b), fmt.Errorf("decode frame: %w", err)
	}
	return len(b) + uvarintLen(n), nil
}

// decode reads what a peer sent into m. Of its words only those that can be
// printed get in: reasons and errors are shown to people.
func decode(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return err
	}
	clean(m.ProtoReflect())
	return nil
}

// clean makes every string in m printable. No message has maps.
func clean(m protoreflect.Message) {
	printable := func(v protoreflect.Value) protoreflect.Value {
		return protoreflect.ValueOfString(capacity.Printable(v.String(), len(v.String())))
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch kind := f.Kind(); {
		case kind == protoreflect.MessageKind && f.IsList():
			for i := range v.List().Len() {
				clean(v.List().Get(i).Message())
			}
		case kind == protoreflect.MessageKind:
			clean(v.Message())
		case kind == protoreflect.StringKind && f.IsList():
			for i := range v.List().Len() {
				v.List().Set(i, printable(v.List().Get(i)))
			}
		case kind == protoreflect.StringKind:
			m.Set(f, printable(v))
		}
		return true
	})
}

func uvarintLen(n uint64) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}
