package client

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pion/webrtc/v4"
)

// maxFile bounds the bytes that Open reads into memory.
const maxFile = 512 << 20

// ErrBadMedia means that a file is not media weir can publish. The message
// names the file and the expected content.
var ErrBadMedia = errors.New("not publishable media")

// Source is encoded media to publish: a clip of at most one audio and one video
// track, held in memory, on one timeline. It is read only after Open, so one
// Source may feed any number of Publishers.
type Source struct {
	// Once ends the clip at its end. By default it repeats, without a gap in
	// sequence numbers, timestamps or pace.
	Once bool

	tracks []clipTrack
	length time.Duration
}

// clipTrack is one track of a Source, its frames in the order in which they are
// sent and decoded.
type clipTrack struct {
	codec  webrtc.RTPCodecCapability
	frames []frame
}

func (t clipTrack) video() bool { return strings.HasPrefix(t.codec.MimeType, "video/") }

// frame is one encoded picture or one audio packet.
type frame struct {
	at   time.Duration // since the clip's start
	last time.Duration // duration
	data []byte
	key  bool // a decoder can begin here; always true for audio
}

//go:embed clip/pattern.ivf
var patternVideo []byte

//go:embed clip/pattern.ogg
var patternAudio []byte

// Pattern returns the built-in test clip: ten seconds of VP8, 640×360 at 30
// frames/s, with a large frame counter and a keyframe every half second, and
// Opus that beeps at each full second, when the white square shows.
func Pattern() *Source {
	video, err := readIVF(patternVideo)
	if err != nil {
		panic("client: embedded pattern.ivf: " + err.Error())
	}
	audio, err := readOgg(patternAudio)
	if err != nil {
		panic("client: embedded pattern.ogg: " + err.Error())
	}
	s, err := newSource(video, audio)
	if err != nil {
		panic("client: embedded pattern: " + err.Error())
	}
	return s
}

// Open reads media files, at most one with video and one with audio: .ivf (VP8,
// VP9 or AV1), .h264 or .264 (Annex B byte stream, assumed to run at 30
// frames/s) and .ogg or .opus (Opus). The first bytes of a file determine its
// format; the suffix is used only for Annex B.
//
// The error wraps [ErrBadMedia] if a file is malformed or of another format,
// and fs.ErrNotExist and the like if it cannot be read.
func Open(paths ...string) (*Source, error) {
	if len(paths) == 0 {
		return nil, fmt.Errorf("%w: no file named; expected .ivf, .h264 or .ogg", ErrBadMedia)
	}
	var tracks []clipTrack
	for _, path := range paths {
		t, err := openFile(path)
		if err != nil {
			return nil, err
		}
		tracks = append(tracks, t)
	}
	s, err := newSource(tracks...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(paths, ", "), err)
	}
	return s, nil
}

func openFile(path string) (clipTrack, error) {
	info, err := os.Stat(path)
	if err != nil {
		return clipTrack{}, err // names the file
	}
	if !info.Mode().IsRegular() {
		return clipTrack{}, fmt.Errorf("%w: %s: is not a regular file", ErrBadMedia, path)
	}
	if info.Size() > maxFile {
		return clipTrack{}, fmt.Errorf("%w: %s: %d MiB, at most %d are read into memory", ErrBadMedia, path, info.Size()>>20, maxFile>>20)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return clipTrack{}, err
	}
	t, err := readTrack(strings.ToLower(filepath.Ext(path)), b)
	if err != nil {
		return clipTrack{}, fmt.Errorf("%w: %s: %w", ErrBadMedia, path, err)
	}
	return t, nil
}

// readTrack reads b, the contents of a file with suffix ext.
func readTrack(ext string, b []byte) (clipTrack, error) {
	switch {
	case len(b) == 0:
		return clipTrack{}, errors.New("is empty; expected IVF, H264 Annex B or Ogg Opus")
	case bytes.HasPrefix(b, []byte("DKIF")):
		return readIVF(b)
	case bytes.HasPrefix(b, []byte("OggS")):
		return readOgg(b)
	case ext == ".h264" || ext == ".264":
		return readAnnexB(b)
	case ext == ".ivf":
		return clipTrack{}, errors.New(`expected an IVF file, which begins with "DKIF"`)
	case ext == ".ogg" || ext == ".opus":
		return clipTrack{}, errors.New(`expected an Ogg file, which begins with "OggS"`)
	}
	return clipTrack{}, errors.New("expected .ivf (VP8, VP9, AV1), .h264 (Annex B) or .ogg (Opus)")
}

// newSource puts tracks on one timeline. The clip is as long as its video, or
// its audio if there is none: audio that is longer is cut where video loops.
func newSource(tracks ...clipTrack) (*Source, error) {
	s := &Source{}
	for _, t := range tracks {
		if len(t.frames) == 0 {
			return nil, fmt.Errorf("%w: a track without frames", ErrBadMedia)
		}
		if t.video() && !t.frames[0].key {
			return nil, fmt.Errorf("%w: %s: its first frame is not a keyframe", ErrBadMedia, t.codec.MimeType)
		}
		for _, other := range s.tracks {
			if other.video() == t.video() {
				return nil, fmt.Errorf("%w: both %s and %s; expected at most one video and one audio file",
					ErrBadMedia, other.codec.MimeType, t.codec.MimeType)
			}
		}
		s.tracks = append(s.tracks, t)
		end := t.frames[len(t.frames)-1]
		if t.video() || len(tracks) == 1 {
			s.length = end.at + end.last
		}
	}
	return s, nil
}

// Length returns the duration of the clip before it loops.
func (s *Source) Length() time.Duration { return s.length }
