package forward

// evenMost bounds the padding of one packet, in bytes: an encoder divides a frame
// into packets that are equal but for a byte, and its first or last packet may
// have a longer descriptor.
const evenMost = 8

// even pads packets of one frame to the length of the longer one that follows, if
// that is within evenMost (RFC 3550, section 5.1). Datagrams of one length leave
// as one message, each of which costs the kernel as much as sixty datagrams in it,
// and browsers put the longer packets of a frame behind.
//
// Call it once for each packet, before it is sent to anybody: SRTP must not
// encrypt two packets under one number. A late one stays as it is: it may have
// been sent already, as a repair.
func (r *ring) even(packets []kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := len(packets) - 2; i >= 0; i-- {
		k, next := &packets[i], &packets[i+1]
		short := len(next.data) + int(next.padding) - len(k.data)
		if k.late || short <= 0 || short > evenMost || k.source != next.source || k.timestamp != next.timestamp || k.extended != next.extended {
			continue
		}
		k.padding = uint8(short)
		if slot := r.slot(k.position); slot.position == k.position && slot.source == k.source {
			slot.padding = k.padding // for repair
		}
	}
}
