// Package frame puts protobuf messages on a byte stream, one after the other:
// each behind its length as an unsigned varint. Both the requests between nodes
// and the signalling of a cascade link use it.
//
// The input is a reader that a peer writes to, or a message; the output is the
// message, or a write. The package keeps no state and starts no goroutines.
package frame

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"weir/capacity"
)

// ErrTooLarge means that a peer announced a frame beyond the limit.
var ErrTooLarge = errors.New("frame too large")

// step is how much memory is allocated at a time, in bytes.
const step = 4 << 10

// Append appends m to b behind its length as an unsigned varint.
func Append(b []byte, m proto.Message) ([]byte, error) {
	b = binary.AppendUvarint(b, uint64(proto.Size(m)))
	return proto.MarshalOptions{}.MarshalAppend(b, m)
}

// Size is the size of m as a frame, in bytes.
func Size(m proto.Message) int { return protowire.SizeBytes(proto.Size(m)) }

// Write writes m in one Write and returns the number of bytes written.
func Write(w io.Writer, m proto.Message) (int, error) {
	b, err := Append(nil, m)
	if err != nil {
		return 0, err
	}
	return w.Write(b)
}

// Read reads one frame of at most limit bytes into m, as it was sent. Memory
// grows with the bytes received, not with the length announced. Read returns
// the bytes read, including the length, and io.EOF only if there was no frame
// at all; the error wraps [ErrTooLarge] if more than limit bytes were
// announced.
func Read(r *bufio.Reader, limit int, m proto.Message) (int, error) {
	return read(r, limit, m, proto.Unmarshal)
}

// ReadPrintable is [Read], but replaces unprintable characters in every string
// of m: peers' reasons and errors are shown to people.
func ReadPrintable(r *bufio.Reader, limit int, m proto.Message) (int, error) {
	return read(r, limit, m, DecodePrintable)
}

func read(r *bufio.Reader, limit int, m proto.Message, decode func([]byte, proto.Message) error) (int, error) {
	n, err := binary.ReadUvarint(r)
	if err != nil {
		return 0, err
	}
	if n > uint64(limit) {
		return 0, fmt.Errorf("%w: %d bytes announced, at most %d accepted", ErrTooLarge, n, limit)
	}
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
	return protowire.SizeBytes(len(b)), nil
}

// DecodePrintable decodes b, a peer's message without its length, and replaces
// unprintable characters in every string of m.
func DecodePrintable(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return err
	}
	clean(m.ProtoReflect())
	return nil
}

// clean replaces unprintable characters in every string of m. No message has
// maps.
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
