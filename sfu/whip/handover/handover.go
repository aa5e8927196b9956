package handover

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"weir/capacity"
	"weir/capacity/frame"
	"weir/sfu/pb"
	"weir/sfu/sdp"
)

// Protocol is the name of the protocol by which a node hands a request over to
// another, below /weir/<network-id>/; see pb/overflow.proto.
const Protocol = "overflow/1"

const (
	// MaxMessage bounds each message of the protocol, in bytes: an offer or an
	// answer, and the fields beside it.
	MaxMessage = sdp.MaxBytes + 8<<10
	// maxHeader bounds a value that is copied into a header, in bytes.
	maxHeader = 2 << 10
	// maxLinks bounds the Link headers of an answer.
	maxLinks = 4
)

// Signal is a stream to another node, or one end of a pipe in a test.
type Signal = interface {
	io.ReadWriteCloser
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// Ask sends m on signal, closes it, and returns the outcome, whose strings fit
// into headers. If ctx ends first, the error is that of ctx.
func Ask(ctx context.Context, signal Signal, m *pb.Handover) (*pb.Outcome, error) {
	defer signal.Close()
	stop := context.AfterFunc(ctx, func() {
		_ = signal.SetReadDeadline(time.Now())
		_ = signal.SetWriteDeadline(time.Now())
	})
	defer stop()
	out := &pb.Outcome{}
	_, err := frame.Write(signal, m)
	if err == nil {
		_, err = frame.Read(bufio.NewReader(signal), MaxMessage, out)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, err
	}
	for _, word := range []*string{&out.ContentType, &out.Location, &out.Etag, &out.AcceptPatch} {
		if *word = capacity.Printable(*word, maxHeader+1); len(*word) > maxHeader {
			return nil, fmt.Errorf("a header of more than %d bytes", maxHeader)
		}
	}
	// The helper links to nothing but its session.
	out.Links = slices.DeleteFunc(out.Links, func(link string) bool {
		return len(link) > maxHeader || capacity.Printable(link, maxHeader) != link || !strings.HasPrefix(link, "<"+out.Location+"/")
	})
	out.Links = out.Links[:min(len(out.Links), maxLinks)]
	return out, nil
}
