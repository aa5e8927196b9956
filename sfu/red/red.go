// Package red reads and writes redundant audio (RFC 2198): packets that carry,
// before their own block, copies of blocks before.
package red

// ext is the bit of a block's header that says that another header follows, and
// maxBlocks the most blocks that a packet may have; browsers send three.
const (
	ext       = 0x80
	maxBlocks = 32
)

// blocks returns where the payload type of each block is, and where the last
// block begins, the packet's own.
func blocks(payload []byte) (types []int, primary int, ok bool) {
	at, data := 0, 0 // data: bytes of the blocks before the primary one
	for at < len(payload) && payload[at]&ext != 0 {
		if at+4 >= len(payload) || len(types) == maxBlocks {
			return nil, 0, false
		}
		types = append(types, at)
		data += int(payload[at+2]&3)<<8 | int(payload[at+3])
		at += 4
	}
	primary = at + 1 + data
	return append(types, at), primary, at < len(payload) && primary <= len(payload)
}

// Valid reports whether payload is redundant audio.
func Valid(payload []byte) bool {
	_, _, ok := blocks(payload)
	return ok
}

// Primary returns the packet's own block, a part of payload; nil if payload is
// not valid.
func Primary(payload []byte) []byte {
	_, primary, ok := blocks(payload)
	if !ok {
		return nil
	}
	return payload[primary:]
}

// AppendTyped appends payload to b, with pt as the payload type of all blocks.
func AppendTyped(b, payload []byte, pt uint8) []byte {
	from := len(b)
	b = append(b, payload...)
	types, _, ok := blocks(payload)
	for _, at := range types {
		if ok {
			b[from+at] = b[from+at]&ext | pt&^ext
		}
	}
	return b
}

// AppendAlone appends a packet that carries block alone, as of type pt.
func AppendAlone(b, block []byte, pt uint8) []byte {
	return append(append(b, pt&^ext), block...)
}
