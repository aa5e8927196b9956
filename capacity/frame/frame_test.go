package frame

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

// A file has strings, lists of them, messages and lists of those.
type file = descriptorpb.FileDescriptorProto

const limit = 96 << 10

func sample() *file {
	return &file{
		Name:       proto.String("stream/a"),
		Dependency: []string{"one", "two"},
		MessageType: []*descriptorpb.DescriptorProto{
			{Name: proto.String("m"), Field: []*descriptorpb.FieldDescriptorProto{{Name: proto.String("f"), Number: proto.Int32(7)}}},
		},
		Options: &descriptorpb.FileOptions{GoPackage: proto.String("p")},
	}
}

func TestFrames(t *testing.T) {
	m := sample()
	var buf bytes.Buffer
	wrote, err := Write(&buf, m)
	if err != nil || wrote != buf.Len() || wrote != Size(m) {
		t.Fatalf("wrote %d of %d bytes, said to be %d: %v", wrote, buf.Len(), Size(m), err)
	}
	sent := buf.Bytes()
	var got file
	read, err := Read(bufio.NewReader(bytes.NewReader(sent)), len(sent), &got)
	if err != nil || read != wrote || !proto.Equal(m, &got) {
		t.Errorf("read %d bytes, %v: %v", read, err, &got)
	}
	if _, err := Read(bufio.NewReader(bytes.NewReader(sent)), len(sent)-2, &got); !errors.Is(err, ErrTooLarge) {
		t.Errorf("beyond the limit: %v", err)
	}
	if _, err := Read(bufio.NewReader(bytes.NewReader(sent[:len(sent)-1])), len(sent), &got); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("torn: %v", err)
	}
	if _, err := Read(bufio.NewReader(bytes.NewReader(nil)), 100, &got); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
	if _, err := Read(bufio.NewReader(bytes.NewReader([]byte{0})), 100, &got); err != nil {
		t.Errorf("an empty message: %v", err)
	}
}

// A message longer than one step of memory is read whole, and the next one
// after it.
func TestFramesFollowEachOther(t *testing.T) {
	long := &file{Name: proto.String(strings.Repeat("x", 3*step+1))}
	var buf bytes.Buffer
	for _, m := range []proto.Message{long, sample()} {
		if _, err := Write(&buf, m); err != nil {
			t.Fatal(err)
		}
	}
	r := bufio.NewReader(&buf)
	for _, want := range []*file{long, sample()} {
		var got file
		if n, err := Read(r, limit, &got); err != nil || n != Size(want) || !proto.Equal(&got, want) {
			t.Errorf("read %d bytes of %d: %v", n, Size(want), err)
		}
	}
}

// Memory grows with the bytes received, not with the length announced.
func TestAnnouncementsCostNothing(t *testing.T) {
	head := binary.AppendUvarint(nil, limit)
	var m file
	r := bufio.NewReader(bytes.NewReader(head))
	per := testing.AllocsPerRun(10, func() {
		r.Reset(bytes.NewReader(head))
		_, _ = Read(r, limit, &m)
	})
	taken := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.Reset(bytes.NewReader(head))
			_, _ = Read(r, limit, &m)
		}
	}).AllocedBytesPerOp()
	if taken > 16<<10 {
		t.Errorf("%d bytes in %v allocations for an announcement of %d", taken, per, limit)
	}
}

// Strings from a peer are printable after ReadPrintable, at any depth of a
// message; text with legitimate line breaks, such as SDP, is read as it was
// sent.
func TestWordsArePrintable(t *testing.T) {
	const bad, good = "\x1b[2Jwords\n", "?[2Jwords?"
	m := func(word string) *file {
		m := sample()
		m.Name, m.Dependency[1] = &word, word
		m.MessageType[0].Field[0].Name, m.Options.GoPackage = &word, &word
		return m
	}
	b, err := Append(nil, m(bad))
	if err != nil {
		t.Fatal(err)
	}
	var got file
	if _, err := ReadPrintable(bufio.NewReader(bytes.NewReader(b)), limit, &got); err != nil || !proto.Equal(&got, m(good)) {
		t.Errorf("read %v, %v", &got, err)
	}
	if _, err := Read(bufio.NewReader(bytes.NewReader(b)), limit, &got); err != nil || !proto.Equal(&got, m(bad)) {
		t.Errorf("read as sent: %v, %v", &got, err)
	}
	if b, err = proto.Marshal(m(bad)); err != nil {
		t.Fatal(err)
	}
	if err := DecodePrintable(b, &got); err != nil || !proto.Equal(&got, m(good)) {
		t.Errorf("decoded %v, %v", &got, err)
	}
}

func FuzzRead(f *testing.F) {
	for _, m := range []proto.Message{&file{}, sample()} {
		b, err := Append(nil, m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Add([]byte{0x80})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, read := range []func(*bufio.Reader, int, proto.Message) (int, error){Read, ReadPrintable} {
			var m file
			n, err := read(bufio.NewReader(bytes.NewReader(b)), limit, &m)
			if err != nil {
				continue
			}
			if n > len(b) || n > limit+binary.MaxVarintLen64 {
				t.Fatalf("read %d of %d bytes", n, len(b))
			}
			again, err := Append(nil, &m)
			if err != nil {
				t.Fatalf("what was read cannot be written: %v", err)
			}
			var back file
			if _, err := Read(bufio.NewReader(bytes.NewReader(again)), 2*limit, &back); err != nil {
				t.Fatalf("what was written cannot be read: %v", err)
			}
		}
	})
}

func BenchmarkDecodePrintable(b *testing.B) {
	m := &file{}
	for range 64 {
		m.MessageType = append(m.MessageType, &descriptorpb.DescriptorProto{Name: proto.String("stream/some-name")})
	}
	sent, err := proto.Marshal(m)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := DecodePrintable(sent, &file{}); err != nil {
			b.Fatal(err)
		}
	}
}
