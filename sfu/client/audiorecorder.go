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
	// opusClock is the clock rate of Opus in RTP and in Ogg, in Hz (RFC 7587,
	// section 4.1; RFC 7845, section 4).
	opusClock = 48000
	// opusMost is the longest duration of an Opus packet, in units of opusClock
	// (RFC 6716, section 3.2.5).
	opusMost = 120 * opusClock / 1000
	// lostFrame is the TOC byte of a packet with one empty frame of 20 ms,
	// which decoders conceal like a lost one (RFC 6716, sections 3.1 and
	// 3.2.1); lostStep is its length.
	lostFrame = 31 << 3
	lostStep  = 20 * opusClock / 1000
	// mostLost bounds the filling of one gap. A longer gap is shortened.
	mostLost = int64(10 * 60 * opusClock)
	// audioReorder is how many packets later a missing packet is taken for
	// lost.
	audioReorder = 50
)

// AudioRecorder writes the audio of a stream, which must be Opus, to an Ogg
// file. Ogg has no timestamps of packets: lost packets are filled, so that
// later ones are not early. It belongs to one goroutine.
type AudioRecorder struct {
	ogg     *oggwriter.OggWriter
	track   TrackInfo // the recorded track; zero until audio comes
	builder *samplebuilder.SampleBuilder
	next    uint32 // RTP timestamp after the last packet written
	resumed int64  // length of the time between two connections
	begins  bool   // no packet of this connection has been written
	packets int
	err     error // the first error; nothing is written after it
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

// An oggFile changes the first page of oggwriter so that players skip nothing
// at the beginning (RFC 7845, section 4.2): oggwriter lets them skip 80 ms,
// which belong to the stream, and for which ffmpeg 5 delays the video in
// Matroska.
type oggFile struct {
	*os.File
	head []byte // output before begin
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

// begin writes the output so far, the first page with no pre-skip.
func (f *oggFile) begin() error {
	const (
		body  = 28 // offset of the body in a page with one segment (RFC 3533, section 6)
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

// oggChecksum returns the checksum of a page whose checksum field is 0 (RFC
// 3533, section 6).
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

// Write records a packet if it belongs to the first audio track. It fits
// ViewConfig.OnRTP. Close reports errors.
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

// Resume makes the recorder continue with the packets of another Viewer, the
// first of which comes gap after the last one.
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
			continue // it overlaps packets already written
		}
		for lost = min(lost, mostLost); lost >= lostStep && r.err == nil; lost -= lostStep {
			r.put([]byte{lostFrame | s.Data[0]&4}) // stereo if this packet is
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

// Packets returns the number of packets received and written.
func (r *AudioRecorder) Packets() int { return r.packets }

// Close completes the file, and returns the first error of writing.
func (r *AudioRecorder) Close() error {
	if r.builder != nil {
		r.builder.Flush()
		r.drain()
	}
	if err := errors.Join(r.err, r.ogg.Close()); err != nil { // it also closes the file
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

// opusLength returns the duration of an Opus packet, in units of opusClock; 0
// if it is malformed (RFC 6716, section 3).
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
