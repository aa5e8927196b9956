package srtp

import (
	"bytes"
	"testing"

	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"
)

// What is sealed is what pion's SRTP opens: with both sizes of key, over
// roll-overs, late, and for two SSRCs that are counted apart.
func TestSealedIsSRTP(t *testing.T) {
	for _, c := range []struct {
		profile srtp.ProtectionProfile
		key     int
	}{{srtp.ProtectionProfileAeadAes128Gcm, 16}, {srtp.ProtectionProfileAeadAes256Gcm, 32}} {
		t.Run(c.profile.String(), func(t *testing.T) {
			key, salt := bytes.Repeat([]byte{0x5a}, c.key), []byte("twelve bytes")
			open, err := srtp.CreateContext(key, salt, c.profile)
			if err != nil {
				t.Fatal(err)
			}
			s := NewSealer(key, salt)
			var media, rtx Index
			check := func(index *Index, ssrc uint32, seq uint16) {
				t.Helper()
				p := packet(seq, uint32(seq), bytes.Repeat([]byte{byte(seq)}, 50))
				p.SSRC = ssrc
				if seq%3 == 0 {
					p.Padding, p.Header.PaddingSize = true, uint8(1+seq%8)
				}
				if err := p.SetExtension(3, []byte("level")); err != nil {
					t.Fatal(err)
				}
				want, err := p.Marshal()
				if err != nil {
					t.Fatal(err)
				}
				sealed := make([]byte, SealedSize(&p.Header, p.Payload))
				n, err := s.Seal(sealed, index, &p.Header, p.Payload)
				if err != nil || n != len(sealed) {
					t.Fatalf("Seal = %d, %v, want %d", n, err, len(sealed))
				}
				if got, err := open.DecryptRTP(nil, sealed, &rtp.Header{}); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("SSRC %d, number %d: %v", ssrc, seq, err)
				}
			}
			for i := range 3 << 16 {
				switch seq := uint16(65000 + i); {
				case seq%1000 == 0: // comes after the next
				case seq%1000 == 1:
					check(&media, 1, seq)
					check(&media, 1, seq-1)
				case seq%7 == 0 || seq < 3 || seq > 65533:
					check(&media, 1, seq)
				}
				if i%20_000 == 0 {
					check(&rtx, 2, uint16(i))
				}
			}
			if media.highest>>16 != 3 || rtx.highest>>16 != 2 {
				t.Errorf("rolled over %d and %d times", media.highest>>16, rtx.highest>>16)
			}
		})
	}
}

// To seal a packet allocates nothing.
func TestSealingDoesNotAllocate(t *testing.T) {
	s := NewSealer(make([]byte, 16), make([]byte, saltSize))
	p := packet(1, 0, make([]byte, 1100))
	var index Index
	to := make([]byte, SealedSize(&p.Header, p.Payload))
	if n := testing.AllocsPerRun(1000, func() {
		p.SequenceNumber++
		if _, err := s.Seal(to, &index, &p.Header, p.Payload); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a packet", n)
	}
}
