package udp

import "net/netip"

const (
	// batchBytes is the size of a batch's buffer: about 200 packets of video,
	// little enough to stay in a core's cache between seal and send.
	batchBytes = 256 << 10
	// batchStart is the size that it begins with: a frame for one viewer.
	batchStart = 16 << 10
	// batchMessages bounds the messages of one send.
	batchMessages = 128
	// maxSegments bounds the datagrams of one message, which leave in one burst:
	// 29 kB of video, a quarter of a millisecond at 1 Gbit/s. With 44, about all
	// that fits a message, a datagram costs 5 % less; with 8 it costs 48 % more.
	// Linux takes 64.
	maxSegments = 24
	// maxMessage bounds a message, in bytes of payload: what UDP over IPv4
	// carries in one datagram.
	maxMessage = 65507
)

// A Batch gathers datagrams, and sends them with as few system calls as the
// system has for them. Gather the datagrams to one address one after the other:
// those of one size, of which the last may be shorter, leave as one message.
//
// A Batch is for media over UDP: it neither reaches clients over TCP, whose
// packets pion's connections take, nor learns from connectivity checks. One
// goroutine owns it.
type Batch struct {
	socket   *Socket
	buffer   []byte
	used     int // bytes of buffer in use
	to       netip.AddrPort
	messages []message
	headers  headers

	sent int   // datagrams since the last Flush
	err  error // the first since then
}

// A message is one or more datagrams to one address, adjacent in memory, all of
// them of segment bytes but the last, which may be shorter.
type message struct {
	to      netip.AddrPort
	control []byte // control message to send it with; nil: from any address
	data    []byte
	segment int
	count   int
}

// NewBatch returns an empty batch.
func (s *Socket) NewBatch() *Batch {
	return &Batch{socket: s, buffer: make([]byte, batchStart), messages: make([]message, 0, batchMessages)}
}

// Next returns a buffer of size bytes for one datagram to an address. It leaves
// from the local address that the peer uses, as those of
// [Socket.WriteToAddrPort] do. Without a Commit before the next Next, nothing
// is sent. Next sends what was gathered if the batch is full; see [Batch.Flush]
// for the result.
func (b *Batch) Next(to netip.AddrPort, size int) []byte {
	if b.used+size > len(b.buffer) {
		b.send()
		b.used = 0
		if larger := max(size, min(2*len(b.buffer), batchBytes)); larger > len(b.buffer) {
			b.buffer = make([]byte, larger)
		}
	}
	b.to = to
	return b.buffer[b.used : b.used+size : b.used+size]
}

// Commit says that the datagram is the first n bytes of the buffer that Next
// returned last. It takes one Commit for each Next.
func (b *Batch) Commit(n int) {
	if n <= 0 {
		return
	}
	data := b.buffer[b.used : b.used+n]
	b.used += n
	var control []byte
	if last := len(b.messages) - 1; last >= 0 && b.messages[last].to == b.to {
		m := &b.messages[last]
		if m.extend(n) {
			return
		}
		control = m.control
	} else if b.socket.wire.any {
		control = b.socket.filter.control(endpointOf(b.to))
	}
	if len(b.messages) == batchMessages {
		b.send()
	}
	b.messages = append(b.messages, message{to: b.to, control: control, data: data, segment: n, count: 1})
}

// extend adds the n bytes behind m to it, or returns false if they have to be a
// message of their own.
func (m *message) extend(n int) bool {
	closed := len(m.data) < m.count*m.segment // by a shorter datagram
	if closed || n > m.segment || m.count == maxSegments || len(m.data)+n > maxMessage {
		return false
	}
	m.data = m.data[:len(m.data)+n]
	m.count++
	return true
}

// Flush sends what was gathered and empties the batch. It returns how many
// datagrams were sent since the last Flush, and the first error: the rest was
// sent all the same, and what the system refused is counted by reason.
func (b *Batch) Flush() (sent int, err error) {
	b.send()
	sent, err = b.sent, b.err
	b.used, b.sent, b.err = 0, 0, nil
	return sent, err
}

// send sends the messages. Their buffer stays in use.
func (b *Batch) send() {
	if b.socket.wire.batches {
		b.headers.send(b)
	} else {
		for i := range b.messages {
			m := &b.messages[i]
			b.sendSingly(part{m, 0, m.count})
		}
	}
	clear(b.messages) // the control messages
	b.messages = b.messages[:0]
}

// A part is some of the datagrams of a message: those from first up to end.
type part struct {
	*message
	first, end int
}

func (p part) len() int { return p.end - p.first }

func (p part) payload() []byte {
	return p.data[p.first*p.segment : min(p.end*p.segment, len(p.data))]
}

// sendSingly sends each datagram of p with a system call of its own.
func (b *Batch) sendSingly(p part) {
	for i := p.first; i < p.end; i++ {
		one := part{p.message, i, i + 1}
		if _, err := b.socket.wire.write(one.payload(), p.to, p.control); err != nil {
			b.refused(1, err)
		} else {
			b.socket.wire.out.calls.Add(1)
			b.took(one)
		}
	}
}

// took counts p as sent, in one message.
func (b *Batch) took(p part) {
	n := p.len()
	b.sent += n
	b.socket.wire.out.messages.Add(1)
	b.socket.wire.out.datagrams.Add(int64(n))
	b.socket.packOut.Add(int64(n))
	b.socket.out.Add(int64(len(p.payload())))
}

// refused counts n datagrams as refused.
func (b *Batch) refused(n int, err error) {
	b.socket.wire.refuse(n, err)
	if b.err == nil {
		b.err = err
	}
}
