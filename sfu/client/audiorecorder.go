package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/webrtc/v4/pkg/media/oggwriter"
	"github.com/pion/webrtc/v4/pkg/media/samplebuilder"
)

const (
	// opusClock is RTP's for Opus, and Ogg's (RFC 7587, section 4.1; RFC 7845,
	// section 4).
	opusClock = 48000
	// opusMost is the longest packet of Opus (RFC 6716, section 3.2.5).
	opusMost = 120 * opusClock / 1000
	// lostFrame is the TOC byte of a packet that has one frame of 20 ms and nothing
	// in it, which decoders conceal as they do a lost one (RFC 6716, sections 3.1
	// and 3.2.1), and lostStep its length.
	lostFrame = 31 << 3
	lostStep  = 20 * opusClock / 1000
	// mostLost bounds what is filled of one gap. A longer gap is shortened.
	mostLost = int64(10 * 60 * opusClock)
	// audioReorder is how many packets later a missing one is given up.
	audioReorder = 50
)

// AudioRecorder writes the audio of a stream, which must be Opus, to an Ogg file.
// Ogg has no time stamps of packets: what was lost is filled, so that what follows
// is not early. It belongs to one goroutine.
type AudioRecorder struct {
	ogg     *oggwriter.OggWriter
	track   TrackInfo // what is recorded; the zero value until audio comes
	builder *samplebuilder.SampleBuilder
	next    uint32 // the RTP timestamp after what was written last
	resumed int64  // of the time between two connections, of which nothing came
	begins  bool   // no packet of this connection has been written
	packets int
	err     error // the first one; nothing is written after
}

// NewAudioRecorder creates the file, or truncates it.
func NewAudioRecorder(path string) (*AudioRecorder, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	out := &oggFile{File: f}
	ogg, err := oggwriter.NewWith(out, opusClock, 2)
	if err == nil {
		err = out.begin()
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("record: %w", err)
	}
	return &AudioRecorder{ogg: ogg}, nil
}

// An oggFile has its first page, which oggwriter makes, say that players leave
// nothing out at the beginning (RFC 7845, section 4.2): these are 80 ms else, which
// are the stream's, and by which ffmpeg 5 has the video late in Matroska.
type oggFile struct {
	*os.File
	head []byte // what was written before begin
	open bool
}

// Write implements io.Writer.
func (f *oggFile) Write(b []byte) (int, error) {
	if !f.open {
		f.head = append(f.head, b...)
		return len(b), nil
	}
	return f.File.Write(b)
}

// begin writes what there is by now, the first page with no pre-skip.
func (f *oggFile) begin() error {
	const (
		body  = 28 // of a page that has one segment (RFC 3533, section 6)
		check = 22
		size  = body + 19
	)
	if len(f.head) < size || string(f.head[body:body+8]) != "OpusHead" {
		return errors.New("no header of Opus")
	}
	page := f.head[:size]
	binary.LittleEndian.PutUint16(page[body+10:], 0)
	binary.LittleEndian.PutUint32(page[check:], 0)
	binary.LittleEndian.PutUint32(page[check:], oggChecksum(page))
	f.open = true
	_, err := f.File.Write(f.head)
	return err
}

// oggChecksum is a page's, whose own field is 0 (RFC 3533, section 6).
func oggChecksum(page []byte) (sum uint32) {
	for _, b := range page {
		sum ^= uint32(b) << 24
		for range 8 {
			if sum&(1<<31) != 0 {
				sum = sum<<1 ^ 0x04c11db7
			} else {
				sum <<= 1
			}
		}
	}
	return sum
}

// Write takes a packet of any track; those of the first audio track count. It
// fits ViewConfig.OnRTP. Close tells what could not be written.
func (r *AudioRecorder) Write(track TrackInfo, packet *rtp.Packet) {
	if track.Kind != "audio" || r.err != nil {
		return
	}
	if track.Codec != "audio/opus" {
		r.err = fmt.Errorf("record: codec %s cannot be written as Ogg", track.Codec)
		return
	}
	if r.builder == nil || track.SSRC != r.track.SSRC && r.resumed > 0 {
		if r.builder != nil {
			r.builder.Flush()
			r.drain()
		}
		r.track, r.begins = track, true
		r.builder = samplebuilder.New(audioReorder, &codecs.OpusPacket{}, opusClock)
	}
	if track.SSRC != r.track.SSRC || len(packet.Payload) == 0 {
		return
	}
	r.builder.Push(packet.Clone())
	r.drain()
}

// Resume has the recorder go on with another Viewer's packets, the first of which
// come so long after the last.
func (r *AudioRecorder) Resume(gap time.Duration) {
	if r.builder != nil {
		r.resumed += max(1, int64(gap.Seconds()*opusClock))
	}
}

func (r *AudioRecorder) drain() {
	for s := r.builder.Pop(); s != nil && r.err == nil; s = r.builder.Pop() {
		length := opusLength(s.Data)
		if length == 0 {
			continue // not Opus
		}
		lost := int64(int32(s.PacketTimestamp - r.next))
		if r.begins {
			lost, r.resumed, r.begins = r.resumed, 0, false
			if r.packets == 0 {
				lost = 0
			}
		}
		if lost < 0 {
			continue // it overlaps what is written
		}
		for lost = min(lost, mostLost); lost >= lostStep && r.err == nil; lost -= lostStep {
			r.put([]byte{lostFrame | s.Data[0]&4}) // stereo as this one is
		}
		r.put(s.Data)
		r.next = s.PacketTimestamp + length
		r.packets++
	}
}

func (r *AudioRecorder) put(opus []byte) {
	if r.err == nil {
		r.err = r.ogg.WriteRTP(&rtp.Packet{Payload: opus})
	}
}

// Packets returns how many packets that came have been written.
func (r *AudioRecorder) Packets() int { return r.packets }

// Close completes the file.
func (r *AudioRecorder) Close() error {
	if r.builder != nil {
		r.builder.Flush()
		r.drain()
	}
	if err := errors.Join(r.err, r.ogg.Close()); err != nil { // it closes the file
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// opusLength is how long a packet of Opus plays, in units of opusClock; 0 if it is
// none (RFC 6716, section 3).
func opusLength(b []byte) uint32 {
	if len(b) == 0 {
		return 0
	}
	var frame uint32 // in units of 2.5 ms
	switch config := b[0] >> 3; {
	case config < 12: // SILK
		frame = []uint32{4, 8, 16, 24}[config%4]
	case config < 16: // both
		frame = []uint32{4, 8}[config%2]
	default: // CELT
		frame = []uint32{1, 2, 4, 8}[config%4]
	}
	frames := uint32(1)
	switch b[0] & 3 {
	case 1, 2:
		frames = 2
	case 3:
		if len(b) < 2 {
			return 0
		}
		frames = uint32(b[1] & 63)
	}
	length := frame * frames * opusClock / 400
	if length > opusMost {
		return 0
	}
	return length
}
