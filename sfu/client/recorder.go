package client

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/rtp/codecs"
	"github.com/pion/rtp/codecs/vp9"
	"github.com/pion/webrtc/v4/pkg/media/samplebuilder"
)

// Recorder writes the video of a stream to an IVF file, which ffmpeg, and so
// most players, read with any of the codecs a [Viewer] receives. It begins at a
// keyframe and omits frames with a missing packet. It belongs to one goroutine.
type Recorder struct {
	file    *os.File
	track   TrackInfo // the recorded track; zero until video comes
	builder *samplebuilder.SampleBuilder
	resumed int64  // length of the time between two connections; 0: one connection only
	first   uint32 // RTP timestamp of the first frame written
	last    int64  // of the last frame written, since first
	offset  int64  // position of the first frame of another connection
	begins  bool   // that frame has not come yet
	step    int64  // distance between the last two frames
	frames  uint32
	err     error // the first error; nothing is written after it
}

// reorderDepth is how many packets later a missing packet is taken for lost.
const reorderDepth = 512

// NewRecorder creates the file, or truncates it.
func NewRecorder(path string) (*Recorder, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r := &Recorder{file: f}
	if _, err := f.Write(ivfHeader("VP80", 0, 0)); err != nil {
		f.Close()
		return nil, fmt.Errorf("record: %w", err)
	}
	return r, nil
}

// ivfHeader returns a file header with a time base of 1/90000 s.
func ivfHeader(fourCC string, width, height uint16) []byte {
	b := make([]byte, 32)
	copy(b, "DKIF")
	binary.LittleEndian.PutUint16(b[6:], 32)
	copy(b[8:], fourCC)
	binary.LittleEndian.PutUint16(b[12:], width)
	binary.LittleEndian.PutUint16(b[14:], height)
	binary.LittleEndian.PutUint32(b[16:], videoClock)
	binary.LittleEndian.PutUint32(b[20:], 1)
	return b
}

// Write records a packet if it belongs to the first video track. It fits
// ViewConfig.OnRTP. Close reports errors.
func (r *Recorder) Write(track TrackInfo, packet *rtp.Packet) {
	if track.Kind != "video" || r.err != nil {
		return
	}
	if r.builder == nil {
		d, ok := depacketizer(track.Codec)
		if !ok {
			r.err = fmt.Errorf("record: codec %s cannot be written as IVF", track.Codec)
			return
		}
		r.track, r.builder = track, samplebuilder.New(reorderDepth, d, track.Clock)
	}
	if track.SSRC != r.track.SSRC && r.resumed > 0 {
		if track.Codec != r.track.Codec {
			r.err = fmt.Errorf("record: the stream came back as %s; it was %s", track.Codec, r.track.Codec)
			return
		}
		r.goOn(track)
	}
	if track.SSRC != r.track.SSRC || len(packet.Payload) == 0 {
		return
	}
	r.builder.Push(packet.Clone())
	r.drain()
}

// Resume makes the recorder continue with the packets of another Viewer, the
// first of which comes gap after the last one. It continues at a keyframe.
func (r *Recorder) Resume(gap time.Duration) {
	if r.builder != nil {
		r.resumed += max(1, gap.Milliseconds()*videoClock/1000)
	}
}

// goOn continues the recording with track.
func (r *Recorder) goOn(track TrackInfo) {
	r.builder.Flush()
	r.drain()
	d, _ := depacketizer(track.Codec) // cannot fail: the codec is the same as before
	r.track, r.builder = track, samplebuilder.New(reorderDepth, d, track.Clock)
	r.offset, r.resumed, r.begins = r.last+r.resumed, 0, true
}

func depacketizer(mime string) (rtp.Depacketizer, bool) {
	switch fourCC(mime) {
	case "VP80":
		return &codecs.VP8Packet{}, true
	case "VP90":
		return &codecs.VP9Packet{}, true
	case "AV01":
		return &codecs.AV1Depacketizer{}, true
	case "H264":
		return &codecs.H264Packet{}, true
	}
	return nil, false
}

func fourCC(mime string) string {
	switch mime {
	case "video/VP8":
		return "VP80"
	case "video/VP9":
		return "VP90"
	case "video/AV1":
		return "AV01"
	case "video/H264":
		return "H264"
	}
	return ""
}

// drain writes the complete frames.
func (r *Recorder) drain() {
	for s := r.builder.Pop(); s != nil && r.err == nil; s = r.builder.Pop() {
		data := s.Data
		if fourCC(r.track.Codec) == "AV01" {
			data = append([]byte{0x12, 0x00}, data...) // the temporal delimiter, which RTP omits
		}
		if r.begins {
			if _, _, key := dimensions(r.track.Codec, data); !key {
				continue
			}
			r.first, r.begins = s.PacketTimestamp-uint32(r.offset), false
		}
		if r.frames == 0 {
			width, height, key := dimensions(r.track.Codec, data)
			if !key {
				continue
			}
			r.first = s.PacketTimestamp
			if _, r.err = r.file.WriteAt(ivfHeader(fourCC(r.track.Codec), width, height), 0); r.err != nil {
				return
			}
		}
		// IVF wants 64 bits and players want them to rise; RTP's 32 wrap after 13 h.
		at := r.last + int64(int32(s.PacketTimestamp-r.first-uint32(r.last)))
		if r.frames > 0 && at <= r.last {
			continue
		}
		r.step, r.last = at-r.last, at
		head := make([]byte, 12, 12+len(data))
		binary.LittleEndian.PutUint32(head, uint32(len(data)))
		binary.LittleEndian.PutUint64(head[4:], uint64(at))
		if _, r.err = r.file.Write(append(head, data...)); r.err != nil {
			return
		}
		r.frames++
	}
}

// dimensions returns the size of the picture, 0 where that would take a
// decoder's parser, and whether it is a keyframe.
func dimensions(mime string, b []byte) (width, height uint16, key bool) {
	switch fourCC(mime) {
	case "VP80":
		if !vp8Key(b) {
			return 0, 0, false
		}
		if len(b) >= 10 { // RFC 6386 §9.1
			width = binary.LittleEndian.Uint16(b[6:]) & 0x3fff
			height = binary.LittleEndian.Uint16(b[8:]) & 0x3fff
		}
		return width, height, true
	case "VP90":
		var h vp9.Header
		if !vp9Key(b) || h.Unmarshal(b) != nil {
			return 0, 0, false
		}
		return h.Width(), h.Height(), true
	case "AV01":
		return 0, 0, av1Key(b)
	}
	t, err := readAnnexB(b) // fails without an SPS, which the first frame needs
	return 0, 0, err == nil && t.frames[0].key
}

// Frames returns the number of frames written.
func (r *Recorder) Frames() int { return int(r.frames) }

// Close completes the file, and returns the first error of writing.
func (r *Recorder) Close() error {
	if r.builder != nil {
		r.builder.Flush()
		r.drain()
	}
	if r.err == nil {
		// The field is called the number of frames, and players read it as the
		// length.
		var n [4]byte
		binary.LittleEndian.PutUint32(n[:], uint32(min(r.last+r.step, math.MaxUint32)))
		_, r.err = r.file.WriteAt(n[:], 24)
	}
	if err := errors.Join(r.err, r.file.Close()); err != nil {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}
