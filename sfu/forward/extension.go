package forward

import "github.com/pion/rtp"

// A Form is the form that the header extensions of a far end may have (RFC 8285,
// section 4.1.2).
type Form uint8

const (
	OneByte Form = iota // of one byte: IDs up to 14, values up to 16 bytes
	TwoByte             // of two bytes
	Mixed               // either: of one byte where that suffices
)

// Bounds of an extension of one byte (RFC 8285, section 4.2).
const (
	maxShortID    = 14
	maxShortValue = 16
)

// maxMIDs is the number of packets that say which section they are of. A far end
// that does not go by the SSRC has learned it by then (RFC 9143, section 9.2).
const maxMIDs = 64

// Extend adds an extension to h. One that does not fit into f is left out.
func (f Form) Extend(h *rtp.Header, id uint8, value []byte) {
	fits := id <= maxShortID && len(value) <= maxShortValue
	switch {
	case f == OneByte && !fits:
		return
	case f == TwoByte, !fits:
		h.ExtensionProfile = rtp.ExtensionProfileTwoByte
	case !h.Extension:
		h.ExtensionProfile = rtp.ExtensionProfileOneByte
	}
	h.Extension = true
	_ = h.SetExtension(id, value) // fits
}

// addExtensions adds the extensions of k to h, with the IDs that ids has for
// those of the source.
func (k *kept) addExtensions(h *rtp.Header, ids map[uint8]uint8, f Form) {
	for rest := k.data[:k.extended]; len(rest) > 0; {
		id, end := rest[0], 2+int(rest[1])
		if to := ids[id]; to != 0 {
			f.Extend(h, to, rest[2:end])
		}
		rest = rest[end:]
	}
}
