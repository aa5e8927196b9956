package forward

// Bounds of one call of [DownTrack.Pad].
const (
	padBytes   = 32 << 10
	padPackets = 64 // of the last ones, which are looked at
)

// Padded reports whether d can send padding: retransmissions were negotiated.
func (d *DownTrack) Padded() bool {
	b := d.bound.Load()
	return b != nil && b.RTX.SSRC != 0 && b.RTX.PayloadType != 0
}

// Pad sends about size bytes of padding, and returns how many it has sent: the
// newest packets, as retransmissions that nobody has asked for, which a receiver
// takes for duplicates, or for the repair of what it misses. Packets of padding
// alone have 255 bytes at most (RFC 3550, section 5.1). Nothing else bounds it.
func (d *DownTrack) Pad(size int) (sent int) {
	if !d.Padded() {
		return 0
	}
	size = min(size, padBytes)
	for i := uint64(0); i < padPackets && sent < size; i++ {
		sent += d.padWith(i)
	}
	return sent
}

// padWith sends the packet again that is back before the last one.
func (d *DownTrack) padWith(back uint64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.bound.Load()
	if b == nil || !d.added || !d.goesOn || back > d.index {
		return 0
	}
	s := spanOf(d.spans, d.index-back)
	if s == nil {
		return 0
	}
	k, ok := s.ring.get(s.source, d.index-back-s.shift)
	if !ok {
		return 0
	}
	h, payload := d.packetOf(b, s, &k)
	n, _ := b.Sender.WriteRTP(h, d.repairs.Wrap(b.RTX, h, payload)) // it fails when the transport closes
	return n
}
