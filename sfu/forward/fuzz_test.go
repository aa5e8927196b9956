package forward

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"

	"weir/sfu/forward/repair"
)

// A judge is a far end that checks what no input may break.
type judge struct {
	t       *testing.T
	highest uint64
	sent    map[uint64][]byte // by SRTP's index, RFC 3711, section 3.3.1
	packets int
	bytes   int
	again   int // bytes
}

func (j *judge) WriteRTP(h *rtp.Header, payload []byte) (int, error) {
	p, err := (&rtp.Packet{Header: *h, Payload: payload}).Marshal()
	if err != nil {
		j.t.Fatalf("%v of %v", err, h)
	}
	if j.packets == 0 && j.highest == 0 {
		j.highest = 1<<32 | uint64(h.SequenceNumber)
	}
	index := j.highest + uint64(int64(int16(h.SequenceNumber-uint16(j.highest))))
	j.highest = max(j.highest, index)
	if was, twice := j.sent[index]; twice {
		if !bytes.Equal(was, p) {
			j.t.Fatalf("index %d was used for %x, and now for %x", index, was, p)
		}
		j.again += len(p)
		return len(p), nil
	}
	j.sent[index] = p
	j.packets++
	j.bytes += len(p)
	return len(p), nil
}

func (j *judge) WriteRTCP(p []rtcp.Packet) error {
	if _, err := rtcp.Marshal(p); err != nil {
		j.t.Fatalf("%v of %v", err, p)
	}
	return nil
}

// FuzzTrack plays any RTP at a track and any RTCP at its viewer. No index of
// SRTP is used for two packets, which would give away both; what is sent again is
// a share of what is sent; nothing is sent that did not come.
func FuzzTrack(f *testing.F) {
	media := func(ahead int16, stamp, flags byte) []byte {
		return append([]byte{0}, byte(uint16(ahead)>>8), byte(ahead), stamp, flags)
	}
	long := func(kind byte, b []byte) []byte { return append([]byte{kind, byte(len(b))}, b...) }
	nack, _ := rtcp.Marshal(nacks(1, 1, 2, 3, 65535))
	compound, _ := rtcp.Marshal([]rtcp.Packet{
		&rtcp.ReceiverReport{Reports: []rtcp.ReceptionReport{{SSRC: 1, TotalLost: 1<<24 - 1, LastSenderReport: 7}}},
		&rtcp.ReceiverEstimatedMaximumBitrate{Bitrate: 1e30, SSRCs: []uint32{1}}, &rtcp.PictureLossIndication{MediaSSRC: 1},
	})
	padded := []byte{0xbf, 96, 0, 9, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xbe, 0xde, 0, 1, 0x32, 1, 2, 3, 9, 9, 2}
	f.Add(bytes.Join([][]byte{media(1, 1, 1), media(1, 1, 0), media(2, 1, 0), long(1, nack), media(-1, 0, 0), media(32767, 255, 0), media(32767, 255, 0), media(2, 0, 1)}, nil))
	f.Add(bytes.Join([][]byte{media(-1, 1, 1), long(1, compound), {3}, media(20000, 200, 1), long(1, nack), {3}, media(-20000, 1, 3)}, nil))
	f.Add(bytes.Join([][]byte{long(2, padded), long(2, padded[:12]), long(1, []byte{0x9f, 205, 0xff, 0xff}), media(1, 0, 4)}, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		track := vp8Track()
		j := &judge{t: t, sent: map[uint64][]byte{}}
		d := NewDownTrack(track)
		d.Bind(Binding{Sender: j, SSRC: 1, PayloadType: 96, Extensions: map[string]uint8{extCaptureTime: 3}, Repair: true})
		exts := map[uint8]string{3: extCaptureTime}
		up := track.Attach(fakeReceiver(func() bool { return true }))
		up.Extensions(exts)
		add(t, track, d)
		defer func() { up.Close() }()
		var seq uint16
		var stamp uint32
		var came int
		now := time.Now()
		forward := func(p *rtp.Packet) {
			if up.Forward(p, time.Now()).Reason == Forwarded {
				came++
			}
			track.Settle()
		}
		for steps := 0; len(b) > 0 && steps < 300; steps++ {
			kind, size := b[0]%4, 0
			if b = b[1:]; kind == 1 || kind == 2 {
				if len(b) == 0 {
					break
				}
				size, b = min(int(b[0]), len(b)-1), b[1:]
			}
			data := b[:size]
			b = b[size:]
			switch {
			case kind == 0 && len(b) >= 4:
				seq += binary.BigEndian.Uint16(b)
				stamp += uint32(b[2]) << 22
				payload := binary.BigEndian.AppendUint32(bytes.Clone(deltaPayload), uint32(came))
				if b[3]&1 != 0 {
					payload = binary.BigEndian.AppendUint32(bytes.Clone(keyPayload), uint32(came))
				}
				if b[3]&4 != 0 {
					payload = nil
				}
				p := packet(seq, stamp, append(payload, make([]byte, int(b[3])*6)...))
				if b = b[4:]; size%2 == 0 {
					_ = p.SetExtension(3, []byte{1, 2, 3})
				}
				forward(p)
			case kind == 1:
				if packets, err := rtcp.Unmarshal(data); err == nil {
					now = now.Add(7 * time.Millisecond)
					d.RTCP(packets, now)
				}
			case kind == 2:
				var p rtp.Packet
				if p.Unmarshal(data) == nil {
					forward(&p)
				}
			case kind == 3:
				up.Close()
				up = track.Attach(fakeReceiver(func() bool { return true }))
				up.Extensions(exts)
			}
		}
		if j.packets > came {
			t.Errorf("%d packets sent, and %d came", j.packets, came)
		}
		if j.again > j.bytes/repair.Share+repair.Start {
			t.Errorf("%d bytes sent again of %d", j.again, j.bytes)
		}
	})
}
