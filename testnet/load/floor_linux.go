package load

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"time"
	"weir/capacity/task"

	"golang.org/x/sys/unix"
)

const (
	rtpHeader = 12
	gcmTag    = 16
	gcmNonce  = 12
	mostRun   = 44 // segments of one run: the kernel takes 64 KiB
)

// A Least is what the machine needs at least to send the stream to so many
// viewers.
type Least struct {
	Viewers int
	Packets uint64
	CPU     time.Duration // of the sending thread
	Elapsed time.Duration
	Refused uint64 // runs that the kernel did not take
}

// PerMillion is CPU seconds a million packets.
func (l Least) PerMillion() float64 {
	if l.Packets == 0 {
		return 0
	}
	return l.CPU.Seconds() / float64(l.Packets) * 1e6
}

// Floor sends the stream for d at its pace to n addresses of the swarm, from a
// thread on that CPU. For each packet and viewer it writes a header and seals
// the payload with AES-128-GCM under the viewer's key (RFC 7714); a frame goes
// to a viewer as one run, and many viewers' go in one system call.
func (s *Swarm) Floor(ctx context.Context, n, cpu int, d time.Duration) (Least, error) {
	type result struct {
		least Least
		err   error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with its affinity
		least, err := s.floor(ctx, n, cpu, d)
		done <- result{least, err}
	}()
	r := <-done
	return r.least, r.err
}

func (s *Swarm) floor(ctx context.Context, n, cpu int, d time.Duration) (Least, error) {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return Least{}, fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return Least{}, err
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer) // as much as allowed
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return Least{}, err
	}
	legs, err := newFloorLegs(n, s.socket.port)
	if err != nil {
		return Least{}, err
	}
	f := &floorSender{fd: fd, legs: legs, out: newSender(batchSize), buf: make([]byte, 0, batchSize*bufferSize)}
	least := Least{Viewers: n}
	start, cpuStart := time.Now(), threadCPU()
	var next [kinds]uint32
	var payloads [][]byte
	bytes := make([]byte, keyframeSize+4<<10)
	for {
		k := audio
		if video.due(next[video]) < audio.due(next[audio]) {
			k = video
		}
		due := k.due(next[k])
		if due >= d {
			break
		}
		if err := task.Sleep(ctx, due-time.Since(start)); err != nil {
			return Least{}, err
		}
		payloads = k.payloads(payloads[:0], bytes, next[k], k == video && next[k]%keyEvery == 0)
		f.frame(k, next[k], payloads)
		least.Packets += uint64(n * len(payloads))
		next[k]++
	}
	least.CPU, least.Elapsed, least.Refused = threadCPU()-cpuStart, time.Since(start), f.refused
	return least, nil
}

func threadCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // it is there since Linux 2.6.12
	return time.Duration(t.Nano())
}

type floorLeg struct {
	to   netip.AddrPort
	ssrc uint32
	aead cipher.AEAD
	salt [gcmNonce]byte
}

func newFloorLegs(n int, port uint16) ([]floorLeg, error) {
	legs := make([]floorLeg, n)
	for i := range legs {
		var key [16]byte
		_, _ = rand.Read(key[:]) // it never fails
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, err
		}
		legs[i].aead, err = cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		_, _ = rand.Read(legs[i].salt[:])
		at := MostPeers - 1 - i // where no peer is
		legs[i].to = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 64, byte(at >> 8), byte(at)}), port)
		legs[i].ssrc = uint32(i)
	}
	return legs, nil
}

type floorSender struct {
	fd      int
	legs    []floorLeg
	out     *sender
	buf     []byte
	seq     uint16
	refused uint64
}

// frame sends one frame to all, one leg after the other.
func (f *floorSender) frame(k kind, n uint32, payloads [][]byte) {
	for i := range f.legs {
		leg := &f.legs[i]
		seq := f.seq
		for rest := payloads; len(rest) > 0; {
			count := runOf(rest)
			if f.out.full() || cap(f.buf)-len(f.buf) < bufferSize {
				f.flush()
			}
			begin := len(f.buf)
			for _, payload := range rest[:count] {
				f.buf = leg.seal(f.buf, k, seq, n*k.step(), payload)
				seq++
			}
			f.out.add([4]byte{}, leg.to, f.buf[begin:], rtpHeader+len(rest[0])+gcmTag)
			rest = rest[count:]
		}
	}
	f.seq += uint16(len(payloads))
	f.flush()
}

// runOf is how many of the payloads can go in one run: equal sizes, the last
// may be shorter.
func runOf(payloads [][]byte) int {
	n := 1
	for n < len(payloads) && n < mostRun && len(payloads[n-1]) == len(payloads[0]) && len(payloads[n]) <= len(payloads[0]) {
		n++
	}
	return n
}

func (f *floorSender) flush() {
	queued := f.out.n
	sent, _ := f.out.flush(f.fd)
	f.refused += uint64(queued - sent)
	f.buf = f.buf[:0]
}

// seal appends a packet of leg's (RFC 7714 §8.1).
func (leg *floorLeg) seal(b []byte, k kind, seq uint16, stamp uint32, payload []byte) []byte {
	at := len(b)
	b = append(b, 0x80, byte(videoPT-int(video-k)*(videoPT-audioPT)))
	b = binary.BigEndian.AppendUint16(b, seq)
	b = binary.BigEndian.AppendUint32(b, stamp)
	b = binary.BigEndian.AppendUint32(b, leg.ssrc)
	nonce := leg.salt
	for i, v := range b[at+8 : at+12] {
		nonce[2+i] ^= v
	}
	nonce[10] ^= byte(seq >> 8)
	nonce[11] ^= byte(seq)
	return leg.aead.Seal(b, nonce[:], payload, b[at:at+rtpHeader])
}
