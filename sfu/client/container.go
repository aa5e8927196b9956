package client

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"strings"
	"time"

	"github.com/pion/rtp/codecs/av1/obu"
	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media/h264reader"
	"github.com/pion/webrtc/v4/pkg/media/oggreader"
)

// The readers parse a whole file, since a clip is kept in memory for looping.
// pion reads Annex B, and the pages of Ogg. Its IVF reader is not used: it
// allocates whatever size a frame claims, 4 GiB for a file of 44 bytes, and
// divides timestamps by the time base, so that frames of 30000/1001 Hz drift.

const (
	videoClock   = 90000
	audioClock   = 48000
	maxClipTime  = 24 * time.Hour
	defaultFrame = time.Second / 30
)

var videoFeedback = []webrtc.RTCPFeedback{{Type: "ccm", Parameter: "fir"}, {Type: "nack"}, {Type: "nack", Parameter: "pli"}}

func videoCodec(mime, fmtp string) webrtc.RTPCodecCapability {
	return webrtc.RTPCodecCapability{MimeType: mime, ClockRate: videoClock, SDPFmtpLine: fmtp, RTCPFeedback: videoFeedback}
}

func opusCodec() webrtc.RTPCodecCapability {
	return webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: audioClock, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
		RTCPFeedback: []webrtc.RTCPFeedback{{Type: webrtc.TypeRTCPFBNACK}}}
}

// readIVF reads an IVF file (https://wiki.multimedia.cx/index.php/IVF) of VP8,
// VP9 or AV1.
func readIVF(b []byte) (clipTrack, error) {
	const fileHeader, frameHeader = 32, 12
	if len(b) < fileHeader || string(b[:4]) != "DKIF" {
		return clipTrack{}, fmt.Errorf(`expected an IVF file, which begins with "DKIF" and a header of %d bytes`, fileHeader)
	}
	if v := binary.LittleEndian.Uint16(b[4:]); v != 0 {
		return clipTrack{}, fmt.Errorf("IVF version %d; expected 0", v)
	}
	header := int(binary.LittleEndian.Uint16(b[6:]))
	if header < fileHeader || header > len(b) {
		return clipTrack{}, fmt.Errorf("IVF header of %d bytes; expected %d", header, fileHeader)
	}
	var t clipTrack
	var isKey func([]byte) bool
	switch fourCC := string(b[8:12]); fourCC {
	case "VP80":
		t.codec, isKey = videoCodec(webrtc.MimeTypeVP8, ""), vp8Key
	case "VP90":
		t.codec, isKey = videoCodec(webrtc.MimeTypeVP9, "profile-id=0"), vp9Key
	case "AV01":
		t.codec, isKey = videoCodec(webrtc.MimeTypeAV1, ""), av1Key
	default:
		return clipTrack{}, fmt.Errorf("IVF of codec %q; expected VP80, VP90 or AV01", fourCC)
	}
	// A frame's time in seconds is its timestamp × scale / rate.
	rate, scale := binary.LittleEndian.Uint32(b[16:]), binary.LittleEndian.Uint32(b[20:])
	if rate == 0 || scale == 0 {
		return clipTrack{}, fmt.Errorf("IVF time base %d/%d; expected two positive numbers", scale, rate)
	}
	var first, before, pts uint64
	for rest := b[header:]; len(rest) > 0; {
		n := len(t.frames)
		if len(rest) < frameHeader {
			return clipTrack{}, fmt.Errorf("IVF frame %d: cut off in its header", n)
		}
		size, at := binary.LittleEndian.Uint32(rest), binary.LittleEndian.Uint64(rest[4:])
		rest = rest[frameHeader:]
		if uint64(size) > uint64(len(rest)) {
			return clipTrack{}, fmt.Errorf("IVF frame %d: %d bytes expected, %d left in the file", n, size, len(rest))
		}
		if size == 0 {
			continue // a dropped frame: it takes its time all the same
		}
		if n == 0 {
			first = at
		}
		since, ok := ticks(at-first, scale, rate)
		if at < first || !ok || n > 0 && since <= t.frames[n-1].at {
			return clipTrack{}, fmt.Errorf("IVF frame %d: timestamp %d does not follow the one before, or is beyond %v", n, at, maxClipTime)
		}
		before, pts = pts, at
		t.frames = append(t.frames, frame{at: since, data: rest[:size:size], key: isKey(rest[:size])})
		rest = rest[size:]
	}
	if len(t.frames) == 0 {
		return clipTrack{}, errors.New("IVF without a frame")
	}
	if t.codec.MimeType == webrtc.MimeTypeVP9 {
		t.codec.SDPFmtpLine = fmt.Sprintf("profile-id=%d", vp9Profile(t.frames[0].data))
	}
	// Each frame lasts until the next, and the last as long as the one before it.
	last := t.frames[len(t.frames)-1].at
	end := last + defaultFrame
	if len(t.frames) > 1 {
		if e, ok := ticks(pts-first+pts-before, scale, rate); ok && e > last {
			end = e // a sum of rounded durations would drift over loops
		}
	}
	for i := range t.frames {
		next := end
		if i+1 < len(t.frames) {
			next = t.frames[i+1].at
		}
		t.frames[i].last = next - t.frames[i].at
	}
	return t, nil
}

// ticks converts n × scale / rate seconds, unless it is beyond maxClipTime.
func ticks(n uint64, scale, rate uint32) (time.Duration, bool) {
	hi, lo := bits.Mul64(n, uint64(scale))
	if hi != 0 {
		return 0, false
	}
	hi, lo = bits.Mul64(lo, uint64(time.Second))
	if hi >= uint64(rate) {
		return 0, false
	}
	q, _ := bits.Div64(hi, lo, uint64(rate))
	return time.Duration(q), q <= uint64(maxClipTime)
}

func vp8Key(b []byte) bool { return len(b) > 0 && b[0]&1 == 0 }

// vp9Key reads the uncompressed header (VP9 bitstream specification §6.2).
func vp9Key(b []byte) bool {
	if len(b) == 0 || b[0]>>6 != 2 {
		return false
	}
	if vp9Profile(b) == 3 {
		return b[0]&0x06 == 0
	}
	return b[0]&0x0c == 0
}

func vp9Profile(b []byte) int {
	return int(b[0]>>5&1 | b[0]>>3&2)
}

// av1Key reports whether a temporal unit holds a sequence header, which
// encoders write before keyframes only.
func av1Key(b []byte) bool {
	for len(b) > 0 {
		h, err := obu.ParseOBUHeader(b)
		if err != nil {
			return false
		}
		if h.Type == obu.OBUSequenceHeader {
			return true
		}
		b = b[h.Size():]
		if !h.HasSizeField {
			return false
		}
		size, n, err := obu.ReadLeb128(b)
		if err != nil || uint64(size)+uint64(n) > uint64(len(b)) {
			return false
		}
		b = b[uint64(size)+uint64(n):]
	}
	return false
}

// readAnnexB reads an H264 byte stream (ITU-T H.264 Annex B). The stream has no
// clock of its own: a picture lasts defaultFrame.
func readAnnexB(b []byte) (clipTrack, error) {
	if !bytes.HasPrefix(b, []byte{0, 0, 1}) && !bytes.HasPrefix(b, []byte{0, 0, 0, 1}) {
		return clipTrack{}, errors.New("expected an H264 Annex B byte stream, which begins with 00 00 01 or 00 00 00 01")
	}
	r, err := h264reader.NewReader(bytes.NewReader(b))
	if err != nil {
		return clipTrack{}, err
	}
	var t clipTrack
	var unit frame // the current access unit
	var sps []byte
	pictured := false // unit has a slice
	flush := func() {
		if pictured {
			unit.at, unit.last = time.Duration(len(t.frames))*defaultFrame, defaultFrame
			t.frames = append(t.frames, unit)
			unit, pictured = frame{}, false
		}
	}
	for {
		nal, err := r.NextNAL()
		if err == io.EOF {
			break
		}
		if err != nil {
			return clipTrack{}, fmt.Errorf("H264 NAL unit: %w", err)
		}
		slice := nal.UnitType >= h264reader.NalUnitTypeCodedSliceNonIdr && nal.UnitType <= h264reader.NalUnitTypeCodedSliceIdr
		if len(nal.Data) < 2 {
			continue
		}
		// A slice whose first_mb_in_slice is 0, and anything but a slice, begins
		// the next access unit (H.264 §7.4.1.2.3, without redundant pictures).
		if !slice || nal.Data[1]&0x80 != 0 {
			flush()
		}
		switch nal.UnitType {
		case h264reader.NalUnitTypeAUD, h264reader.NalUnitTypeFiller:
			continue // not needed by receivers
		case h264reader.NalUnitTypeSPS:
			if sps == nil {
				sps = nal.Data
			}
		case h264reader.NalUnitTypeCodedSliceIdr:
			unit.key = true
		}
		unit.data = append(append(unit.data, 0, 0, 0, 1), nal.Data...)
		pictured = pictured || slice
	}
	flush()
	if len(t.frames) == 0 {
		return clipTrack{}, errors.New("H264 byte stream without a picture")
	}
	if len(sps) < 4 {
		return clipTrack{}, errors.New("H264 byte stream without parameter sets (SPS)")
	}
	t.codec = videoCodec(webrtc.MimeTypeH264,
		"level-asymmetry-allowed=1;packetization-mode=1;profile-level-id="+hex.EncodeToString(sps[1:4]))
	return t, nil
}

// readOgg reads an Ogg file with one Opus stream (RFC 3533, RFC 7845).
func readOgg(b []byte) (clipTrack, error) {
	t := clipTrack{codec: opusCodec()}
	var packet []byte
	var serial uint32
	packets := 0
	at := time.Duration(0)
	file := bytes.NewReader(b)
	pages, err := oggreader.NewWithOptions(file)
	if err != nil {
		return clipTrack{}, err
	}
	for page := 0; file.Len() > 0; page++ {
		p, err := oggPage(pages, b[len(b)-file.Len():])
		if err != nil {
			return clipTrack{}, fmt.Errorf("in Ogg page %d: %w", page, err)
		}
		if page == 0 {
			serial = p.serial
		} else if p.serial != serial {
			continue // another stream, which is not played
		}
		if !p.continued {
			packet = nil
		}
		body := p.body
		for _, n := range p.lacing {
			packet = append(packet, body[:n]...)
			body = body[n:]
			if n == 255 {
				continue // the packet goes on
			}
			done := packet
			packet = nil
			packets++
			switch {
			case packets == 1:
				if !bytes.HasPrefix(done, []byte("OpusHead")) {
					return clipTrack{}, fmt.Errorf("is an Ogg stream that begins with %q; expected OpusHead: only Opus can be published", strings.ToValidUTF8(string(done[:min(8, len(done))]), "?"))
				}
			case packets == 2:
				// OpusTags
			case len(done) > 0:
				d := opusDuration(done)
				if d == 0 {
					return clipTrack{}, fmt.Errorf("in Ogg page %d: not an Opus packet", page)
				}
				t.frames = append(t.frames, frame{at: at, last: d, data: done, key: true})
				if at += d; at > maxClipTime {
					return clipTrack{}, fmt.Errorf("longer than %v", maxClipTime)
				}
			}
		}
	}
	if len(t.frames) == 0 {
		return clipTrack{}, errors.New("is an Ogg file without an Opus packet")
	}
	return t, nil
}

type page struct {
	serial    uint32
	continued bool // its first packet began on the page before
	lacing    []byte
	body      []byte
}

// oggPage reads the next page (RFC 3533 §6). pion's reader does not report
// where packets end: that is read from head, the rest of the file.
func oggPage(pages *oggreader.OggReader, head []byte) (page, error) {
	const header = 27
	if len(head) < header || string(head[:4]) != "OggS" {
		return page{}, errors.New(`it is cut off, or does not begin with "OggS"`)
	}
	if len(head) < header+int(head[26]) {
		return page{}, errors.New("cut off in its segment table")
	}
	body, h, err := pages.ParseNextPage()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return page{}, fmt.Errorf("it is cut off: %d bytes are left in the file", len(head))
	case err != nil:
		return page{}, fmt.Errorf("%w: the file is damaged", err)
	}
	return page{serial: h.Serial, continued: head[5]&1 != 0, lacing: head[header : header+int(head[26])], body: body}, nil
}

// opusDuration returns the duration of an Opus packet by its table of contents
// (RFC 6716 §3.1, §3.2), or 0 if it is malformed. No packet is longer than 120
// ms.
func opusDuration(p []byte) time.Duration {
	if len(p) == 0 {
		return 0
	}
	var d time.Duration
	switch config := p[0] >> 3; {
	case config < 12: // SILK
		d = [4]time.Duration{10, 20, 40, 60}[config%4] * time.Millisecond
	case config < 16: // hybrid
		d = [2]time.Duration{10, 20}[config%2] * time.Millisecond
	default: // CELT
		d = 2500 * time.Microsecond << (config % 4)
	}
	switch p[0] & 3 {
	case 1, 2:
		d *= 2
	case 3:
		if len(p) < 2 {
			return 0
		}
		d *= time.Duration(p[1] & 0x3f)
	}
	if d > 120*time.Millisecond {
		return 0
	}
	return d
}

// rtpTicks converts d ≥ 0 to units of a clock of rate Hz, to the nearest, modulo
// 2³².
func rtpTicks(d time.Duration, rate uint32) uint32 {
	sec, frac := uint64(d/time.Second), uint64(d%time.Second)
	return uint32(sec*uint64(rate) + (frac*uint64(rate)+uint64(time.Second)/2)/uint64(time.Second))
}
