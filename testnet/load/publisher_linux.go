package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
	"weir/capacity/task"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

const (
	kept        = 2048                   // packets of each track, to be sent again
	keyPause    = 200 * time.Millisecond // between keyframes on request
	reportEvery = time.Second
)

// A Publisher sends the stream, from [Swarm.Publish] to Close.
type Publisher struct {
	*Peer
	ssrc [kinds]uint32
	stop context.CancelFunc
	over chan struct{} // closed when the sender has ended

	wanted atomic.Bool // a keyframe
	asks   atomic.Uint64
	nacks  atomic.Uint64 // packets that the server asked for again

	// Of the sender:
	tracks [kinds]outgoing
	out    *sender
	start  time.Time
}

type outgoing struct {
	seq     uint16
	base    uint32 // timestamp of frame 0
	next    uint32 // frame
	packets uint32
	octets  uint32
	kept    [kept]atomic.Pointer[[]byte] // encrypted, by sequence number
}

// Publish begins to publish at url.
func (s *Swarm) Publish(ctx context.Context, url string, wait time.Duration) (*Publisher, error) {
	p := &Publisher{Peer: newPeer(s), over: make(chan struct{}), out: newSender(batchSize)}
	o := offer{send: true}
	for k := range kinds {
		p.ssrc[k] = rand.Uint32()
		o.ssrc[k] = p.ssrc[k]
		p.tracks[k].seq, p.tracks[k].base = uint16(rand.Uint32()), rand.Uint32()
		p.tracks[k].next = s.log[k].newest.Load() + 1 // numbers are those of the swarm
	}
	p.media = p.received
	if err := p.connect(ctx, url, o, wait); err != nil {
		p.leave(ctx)
		return nil, fmt.Errorf("publish: %w", err)
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	go p.run(run)
	return p, nil
}

// Keyframes is how many keyframes the server has asked for, and Repeats how
// many packets.
func (p *Publisher) Keyframes() uint64 { return p.asks.Load() }

// Repeats is how many packets the server has asked for again.
func (p *Publisher) Repeats() uint64 { return p.nacks.Load() }

// Close ends the session at the server.
func (p *Publisher) Close() {
	p.stop()
	<-p.over
	p.leave(context.Background())
}

func (p *Publisher) run(ctx context.Context) {
	defer close(p.over)
	var first [kinds]uint32
	for k := range kinds {
		first[k] = p.tracks[k].next
	}
	p.start = time.Now()
	var lastKey, report time.Duration
	var sinceKey int
	for ctx.Err() == nil {
		k := audio
		if video.due(p.tracks[video].next-first[video]) < audio.due(p.tracks[audio].next-first[audio]) {
			k = video
		}
		due := k.due(p.tracks[k].next - first[k])
		if task.Sleep(ctx, due-time.Since(p.start)) != nil {
			return
		}
		now := time.Since(p.start)
		key := false
		if k == video {
			asked := p.wanted.Load() && now-lastKey >= keyPause
			key = sinceKey == 0 || sinceKey >= keyEvery || asked
			if sinceKey++; key {
				p.wanted.Store(false)
				lastKey, sinceKey = now, 1
			}
		}
		p.send(k, key)
		if now >= report {
			report = now + reportEvery
			p.report(first, now)
		}
	}
}

// send sends the next frame of k in as few system calls as there can be.
func (p *Publisher) send(k kind, key bool) {
	t := &p.tracks[k]
	payloads := k.payloads(nil, make([]byte, keyframeSize+4<<10), t.next, key)
	h := rtp.Header{Version: 2, PayloadType: audioPT, SSRC: p.ssrc[k], Timestamp: t.base + t.next*k.step()}
	if k == video {
		h.PayloadType = videoPT
	}
	var sealed [][]byte
	local := p.keys.Load().local
	for i, payload := range payloads {
		h.SequenceNumber = t.seq
		h.Marker = k == video && i == len(payloads)-1
		plain, err := (&rtp.Packet{Header: h, Payload: payload}).Marshal()
		if err != nil {
			return
		}
		b, err := local.EncryptRTP(nil, plain, &h)
		if err != nil {
			return
		}
		t.kept[t.seq%kept].Store(&b)
		sealed = append(sealed, b)
		t.seq++
		t.packets++
		t.octets += uint32(len(payload))
	}
	// The time at which it is sent is known before anybody can have it.
	p.swarm.log[k].put(sentFrame{number: t.next, packets: len(sealed), key: key, at: time.Now().UnixNano()})
	t.next++
	to := *p.remote.Load()
	for _, b := range sealed {
		if p.out.full() {
			_, _ = p.out.flush(p.swarm.socket.fd) // lost, as it might be on the way
		}
		p.out.add(p.local, to, b, 0)
	}
	_, _ = p.out.flush(p.swarm.socket.fd)
}

// report sends a sender report of each track, of the same moment.
func (p *Publisher) report(first [kinds]uint32, now time.Duration) {
	var all []rtcp.Packet
	ntp := rtp.NewAbsCaptureTimeExtension(p.start.Add(now)).Timestamp
	for k := range kinds {
		t := &p.tracks[k]
		clock := uint64(audioClock)
		if k == video {
			clock = videoClock
		}
		all = append(all, &rtcp.SenderReport{
			SSRC: p.ssrc[k], NTPTime: ntp, RTPTime: t.base + first[k]*k.step() + uint32(uint64(now)*clock/uint64(time.Second)),
			PacketCount: t.packets, OctetCount: t.octets,
		})
	}
	all = append(all, &rtcp.SourceDescription{Chunks: []rtcp.SourceDescriptionChunk{
		{Source: p.ssrc[audio], Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "load"}}},
		{Source: p.ssrc[video], Items: []rtcp.SourceDescriptionItem{{Type: rtcp.SDESCNAME, Text: "load"}}},
	}})
	if b, err := rtcp.Marshal(all); err == nil {
		p.sendRTCP(b)
	}
}

// received answers the server's RTCP, on the reader's goroutine.
func (p *Publisher) received(b []byte, _ int64) {
	if !isRTCP(b) {
		return
	}
	plain, err := p.keys.Load().remote.DecryptRTCP(nil, b, nil)
	if err != nil {
		return
	}
	packets, err := rtcp.Unmarshal(plain)
	if err != nil {
		return
	}
	for _, packet := range packets {
		switch packet := packet.(type) {
		case *rtcp.PictureLossIndication, *rtcp.FullIntraRequest:
			p.asks.Add(1)
			p.wanted.Store(true)
		case *rtcp.TransportLayerNack:
			p.repeat(packet)
		}
	}
}

func (p *Publisher) repeat(nack *rtcp.TransportLayerNack) {
	for k := range kinds {
		if p.ssrc[k] != nack.MediaSSRC {
			continue
		}
		for _, pair := range nack.Nacks {
			for _, seq := range pair.PacketList() {
				p.nacks.Add(1)
				b := p.tracks[k].kept[seq%kept].Load()
				if b != nil && binary.BigEndian.Uint16((*b)[2:]) == seq {
					p.swarm.socket.send(p.local, *p.remote.Load(), *b)
				}
			}
		}
	}
}
