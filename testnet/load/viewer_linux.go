package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// pliAfter is how long a viewer waits for a keyframe before it asks for one,
// and again.
const pliAfter = 700 * time.Millisecond

// A Viewer receives the stream and counts it.
type Viewer struct {
	*Peer
	ssrc       uint32 // of its reports
	firstFrame atomic.Int64

	// Of the reader:
	tracks [kinds]track
}

// View joins a stream. Media is counted from then on.
func (s *Swarm) View(ctx context.Context, url string, wait time.Duration) (*Viewer, error) {
	v := &Viewer{Peer: newPeer(s)}
	for k := range kinds {
		v.tracks[k] = track{kind: k, log: &s.log[k]}
	}
	v.media, v.upkeep, v.again = v.received, v.report, v.repair
	if err := v.connect(ctx, url, offer{}, wait); err != nil {
		v.leave(ctx)
		return nil, fmt.Errorf("view: %w", err)
	}
	v.ssrc = 1<<20 + uint32(v.index)
	return v, nil
}

// FirstFrame is how long after its POST the viewer had its first complete
// keyframe; 0 if it has none.
func (v *Viewer) FirstFrame() time.Duration { return time.Duration(v.firstFrame.Load()) }

// Close ends the session at the server.
func (v *Viewer) Close() { v.leave(context.Background()) }

func (v *Viewer) received(b []byte, at int64) {
	if isRTCP(b) {
		return
	}
	s := v.swarm
	s.arrived.Add(1)
	k := video
	switch b[1] & 0x7f {
	case videoPT:
	case audioPT:
		k = audio
	default:
		return
	}
	t := &v.tracks[k]
	p := arrival{ssrc: binary.BigEndian.Uint32(b[8:]), seq: binary.BigEndian.Uint16(b[2:]), stamp: binary.BigEndian.Uint32(b[4:]), marker: b[1]&0x80 != 0, at: at}
	keyframe := t.packet(p, s.tally, func() []byte { return v.open(b) })
	if keyframe && k == video && v.firstFrame.Load() == 0 {
		v.firstFrame.Store(max(1, at-v.posted.UnixNano()))
	}
	if k == video && len(t.missing) > 0 && !v.isDirty {
		v.isDirty = true
		s.dirty = append(s.dirty, v.Peer)
	}
}

func isRTCP(b []byte) bool { return b[1] >= 192 && b[1] < 224 }

// open returns the payload of a packet, nil if it cannot be decrypted.
func (v *Viewer) open(b []byte) []byte {
	var h rtp.Header
	n, err := h.Unmarshal(b)
	if err != nil {
		return nil
	}
	plain, err := v.keys.Load().remote.DecryptRTP(nil, b, &h)
	if err != nil {
		v.swarm.unopened.Add(1)
		return nil
	}
	return plain[n:]
}

// repair sends NACKs for what is missing. It reports whether some still may be.
func (v *Viewer) repair(now int64) bool {
	t := &v.tracks[video]
	if seqs := t.due(nil, now); len(seqs) > 0 {
		v.send(&rtcp.TransportLayerNack{SenderSSRC: v.ssrc, MediaSSRC: t.ssrc, Nacks: rtcp.NackPairsFromSequenceNumbers(seqs)})
	}
	v.isDirty = len(t.missing) > 0
	return v.isDirty
}

// report sends a receiver report, and a PLI while there is no keyframe.
func (v *Viewer) report(now int64) {
	rr := &rtcp.ReceiverReport{SSRC: v.ssrc}
	for k := range kinds {
		if t := &v.tracks[k]; t.begun {
			rr.Reports = append(rr.Reports, rtcp.ReceptionReport{SSRC: t.ssrc, LastSequenceNumber: uint32(t.cycles)<<16 | uint32(t.highest)})
		}
	}
	packets := []rtcp.Packet{rr}
	if t := &v.tracks[video]; t.begun && v.firstFrame.Load() == 0 && now-v.posted.UnixNano() > pliAfter.Nanoseconds() {
		packets = append(packets, &rtcp.PictureLossIndication{SenderSSRC: v.ssrc, MediaSSRC: t.ssrc})
	}
	v.send(packets...)
}

func (v *Viewer) send(packets ...rtcp.Packet) {
	if b, err := rtcp.Marshal(packets); err == nil {
		v.sendRTCP(b)
	}
}
