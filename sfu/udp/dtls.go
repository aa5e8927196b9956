package udp

import "encoding/binary"

// DTLS 1.2 records: RFC 6347, section 4.1.
const (
	dtlsHeader = 13

	dtlsChangeCipherSpec = 20
	dtlsAlert            = 21
	dtlsHandshake        = 22
	dtlsApplicationData  = 23

	// handshakeHeader is the length of the header of each fragment of a
	// handshake message: RFC 6347, section 4.2.2.
	handshakeHeader = 12
	// maxHandshake bounds one handshake message, in bytes: a long certificate
	// chain takes a tenth of it.
	maxHandshake = 32 << 10
)

// screenDTLS moves the records of datagram that an endpoint may see to its
// front, and returns their length. Secured says that the endpoint's handshake
// is done. If a record is refused for another reason than its age, the whole
// datagram is, and the length is 0; why is valid if the length is less than
// len(datagram).
//
// Records of epoch 0 are not authenticated, so anyone who can forge a source
// address can make them. pion/dtls answers unexpected ones with a fatal alert
// that is encrypted, and so ends the session at the other end. RFC 6347,
// section 4.1.2.7, allows dropping them. Of epoch 0, only records of a
// handshake pass, and only while it runs.
//
// No record of epoch 0 is needed after the handshake: a peer that missed our
// last flight repeats its own, whose Finished is of epoch 1, and pion answers
// that (RFC 6347, section 4.2.4).
func screenDTLS(datagram []byte, secured bool) (n int, why drop) {
	for rest := datagram; len(rest) > 0; {
		if len(rest) <= dtlsHeader || rest[1] != 0xfe || rest[2] != 0xff && rest[2] != 0xfd {
			return 0, dropDTLSMalformed
		}
		end := dtlsHeader + int(binary.BigEndian.Uint16(rest[11:]))
		if end == dtlsHeader || end > len(rest) {
			return 0, dropDTLSMalformed
		}
		record := rest[:end]
		rest = rest[end:]
		kind, body := record[0], record[dtlsHeader:]
		switch epoch := binary.BigEndian.Uint16(record[3:]); {
		case kind < dtlsChangeCipherSpec || kind > dtlsApplicationData:
			return 0, dropDTLSType
		case epoch > 1:
			return 0, dropDTLSEpoch
		case epoch == 1 && kind == dtlsChangeCipherSpec: // pion would not decrypt it
			return 0, dropDTLSClear
		case epoch == 1: // authenticated: pion drops records that it cannot decrypt
		case kind == dtlsAlert || kind == dtlsApplicationData:
			return 0, dropDTLSClear
		case kind == dtlsChangeCipherSpec && (len(body) != 1 || body[0] != 1),
			kind == dtlsHandshake && !handshakeFragments(body):
			return 0, dropDTLSMalformed
		case secured:
			why = dropDTLSLate
			continue
		}
		n += copy(datagram[n:], record)
	}
	return n, why
}

// handshakeFragments reports whether body is one or more whole fragments of
// handshake messages that are sent unencrypted.
func handshakeFragments(body []byte) bool {
	for len(body) > 0 {
		if len(body) < handshakeHeader {
			return false
		}
		whole, offset, length := uint24(body[1:]), uint24(body[6:]), uint24(body[9:])
		if whole > maxHandshake || offset+length > whole || handshakeHeader+length > len(body) {
			return false
		}
		switch body[0] {
		case 1, 2, 3, 4, 11, 12, 13, 14, 15, 16: // from ClientHello to ClientKeyExchange
		default: // Finished among them
			return false
		}
		body = body[handshakeHeader+length:]
	}
	return true
}

func uint24(b []byte) int { return int(b[0])<<16 | int(b[1])<<8 | int(b[2]) }
