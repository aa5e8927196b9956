package keyframe

// H265 NAL unit types (RFC 7798 §1.1.4 and §4.4; ITU-T H.265, table 7-1).
const (
	hevcBLA = 16 // the first of those with which decoding can begin: BLA, IDR, CRA
	hevcCRA = 21 // the last
	hevcVPS = 32
	hevcSPS = 33
	hevcAP  = 48
	hevcFU  = 49
)

// h265 looks for parameter sets or the top of a picture with which decoding can
// begin. Payloads have no decoding order numbers: those are only sent where the
// offer said so (sprop-max-don-diff), which no browser does.
func h265(p []byte) bool {
	if len(p) < 3 {
		return false
	}
	switch t := hevcType(p); t {
	case hevcAP:
		for rest := p[2:]; len(rest) > 2; {
			size := int(rest[0])<<8 | int(rest[1])
			if rest = rest[2:]; size > len(rest) {
				return false
			}
			if nal := rest[:size]; len(nal) >= 3 && hevcStarts(hevcType(nal), nal[2]) {
				return true
			}
			rest = rest[size:]
		}
		return false
	case hevcFU:
		return len(p) > 3 && p[2]&0x80 != 0 && hevcStarts(p[2]&0x3f, p[3])
	default:
		return hevcStarts(t, p[2])
	}
}

// hevcType returns the type of a NAL unit, which begins with two bytes of header.
func hevcType(nal []byte) byte { return nal[0] >> 1 & 0x3f }

// hevcStarts reports whether a NAL unit of type t, with first as the first byte
// after its header, begins a keyframe: parameter sets, or the slice at the top
// of a picture (first_slice_segment_in_pic_flag).
func hevcStarts(t, first byte) bool {
	return t == hevcVPS || t == hevcSPS || t >= hevcBLA && t <= hevcCRA && first&0x80 != 0
}
