package srtp

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"sync"

	"github.com/pion/rtp"
)

const (
	saltSize = 12 // of AES-GCM in SRTP, bytes (RFC 7714, section 12)
	// TagSize is the length of what is added to a packet, in bytes.
	TagSize = 16
)

// A Sealer encrypts and authenticates the RTP packets of one DTLS connection
// with AES-GCM (RFC 7714). Any goroutine may use it.
type Sealer struct {
	aead cipher.AEAD
	salt [saltSize]byte
}

// NewSealer makes a Sealer from a master key of 16 or 32 bytes and a master
// salt. It panics for another size.
func NewSealer(key, salt []byte) *Sealer {
	const encryption, salting = 0, 2 // labels (RFC 3711, section 4.3.2)
	aead, err := cipher.NewGCM(newAES(derive(key, salt, encryption, len(key))))
	if err != nil {
		panic(err) // never: AES has blocks of 16 bytes
	}
	return &Sealer{aead: aead, salt: [saltSize]byte(derive(key, salt, salting, saltSize))}
}

func newAES(key []byte) cipher.Block {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	return block
}

// derive derives n bytes of session key with AES in counter mode, at a key
// derivation rate of 0 (RFC 3711, section 4.3.3; RFC 7714, section 11).
func derive(key, salt []byte, label byte, n int) []byte {
	var iv [aes.BlockSize]byte
	copy(iv[:], salt)
	iv[7] ^= label
	out := make([]byte, n)
	cipher.NewCTR(newAES(key), iv[:]).XORKeyStream(out, out)
	return out
}

// Seal writes the SRTP packet of header, payload and padding, counted by index,
// to to, which has SealedSize bytes of room. It returns the length.
func (s *Sealer) Seal(to []byte, index *Index, header *rtp.Header, payload []byte) (int, error) {
	n, err := header.MarshalTo(to)
	if err != nil {
		return 0, err
	}
	if header.PaddingSize > 0 {
		plain := to[n:][:len(payload)+int(header.PaddingSize)]
		clear(plain[copy(plain, payload):])
		plain[len(plain)-1] = header.PaddingSize // RFC 3550, section 5.1
		payload = plain                          // and sealed in place
	}
	index.mu.Lock()
	defer index.mu.Unlock()
	// RFC 7714, section 8.1.
	iv := index.iv[:]
	clear(iv[:2])
	binary.BigEndian.PutUint32(iv[2:], header.SSRC)
	binary.BigEndian.PutUint32(iv[6:], index.rollover(header.SequenceNumber))
	binary.BigEndian.PutUint16(iv[10:], header.SequenceNumber)
	for i := range iv {
		iv[i] ^= s.salt[i]
	}
	return len(s.aead.Seal(to[:n], iv, payload, to[:n])), nil
}

// SealedSize is the size of the SRTP packet of header, payload and padding, in
// bytes.
func SealedSize(header *rtp.Header, payload []byte) int {
	return header.MarshalSize() + len(payload) + int(header.PaddingSize) + TagSize
}

// An Index is the highest index of the packets that were sent under one
// SSRC: the roll-over counter, then the sequence number (RFC 3711, section
// 3.3.1). The zero value is ready.
type Index struct {
	mu      sync.Mutex
	highest uint64
	began   bool
	iv      [saltSize]byte // of the packet that is being sealed
}

// rollover returns the roll-over counter of a packet with that sequence number,
// which is less than 1<<15 from the highest. Called with mu held.
func (i *Index) rollover(seq uint16) uint32 {
	if !i.began {
		i.highest, i.began = uint64(seq), true
	}
	index := i.highest + uint64(int16(seq-uint16(i.highest))) // wraps around where it is behind
	if int64(index-i.highest) > 0 {
		i.highest = index
	}
	return uint32(index >> 16)
}
