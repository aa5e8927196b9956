package srtp

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/rtp"
	"github.com/pion/srtp/v3"

	"weir/sfu/forward"
)

func packet(seq uint16, ts uint32, payload []byte) *rtp.Packet {
	return &rtp.Packet{Header: rtp.Header{Version: 2, PayloadType: 96, SequenceNumber: seq, Timestamp: ts, SSRC: 1, Marker: true}, Payload: payload}
}

// A keyed pair is an Opener and the far end's SRTP.
type keyedPair struct {
	Opener
	far     *srtp.Context
	keys    *Keys
	got     []string // payloads accepted
	refused map[string]int
}

func newKeyedPair(tb testing.TB, profile dtls.SRTPProtectionProfile) *keyedPair {
	watch := &KeyWatch{
		random: bytes.Repeat([]byte{1}, 32), client: bytes.Repeat([]byte{2}, 32), master: bytes.Repeat([]byte{3}, 48), profile: profile,
	}
	watch.hash = hashOf(dtls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256)
	p := &keyedPair{keys: watch.Take(), refused: map[string]int{}}
	var err error
	if p.far, err = srtp.CreateContext(p.keys.client.key, p.keys.client.salt, srtp.ProtectionProfile(profile)); err != nil {
		tb.Fatal(err)
	}
	p.accept = func(b []byte, _ time.Time) { p.got = append(p.got, string(b[12:])) }
	p.refuse = func(why forward.Reason) { p.refused[why.String()]++ }
	return p
}

// sealed is a packet as the far end sends it, whose payload is its number.
func (p *keyedPair) sealed(tb testing.TB, ssrc uint32, seq uint16) []byte {
	packet := packet(seq, 0, fmt.Append(nil, seq))
	packet.SSRC = ssrc
	plain, err := packet.Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	b, err := p.far.EncryptRTP(nil, plain, nil)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestOpener(t *testing.T) {
	for _, profile := range []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80} {
		for _, c := range []struct {
			name    string
			do      func(p *keyedPair, sealed func(ssrc uint32, seq uint16) []byte, take func([]byte))
			got     []string
			refused map[string]int
		}{
			{"packets in order, late, and over a roll-over", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				p.Secured(p.keys)
				a, b, c, d := sealed(1, 65534), sealed(1, 65535), sealed(1, 0), sealed(1, 1)
				take(a)
				take(c)
				take(b)
				take(d)
			}, []string{"65534", "0", "65535", "1"}, nil},
			{"what comes before the handshake is over waits", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				take(sealed(1, 1))
				take(sealed(1, 2))
				p.Secured(p.keys)
				take(sealed(1, 3))
			}, []string{"1", "2", "3"}, nil},
			{"but not too much of it", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				for i := range uint16(EarlyPackets + 10) {
					take(sealed(1, i))
				}
				p.got, p.early = nil, p.early[:1]
				p.Secured(p.keys)
			}, []string{"0"}, map[string]int{"early": 10}},
			{"a replay, also of what came early", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				a, b := sealed(1, 1), sealed(1, 2)
				take(a)
				p.Secured(p.keys)
				take(a)
				take(b)
				take(b)
			}, []string{"1", "2"}, map[string]int{"replayed": 2}},
			{"late by as much as repair takes, and later", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				p.Secured(p.keys)
				take(sealed(1, 10))
				a, b := sealed(1, 11), sealed(1, 12)
				take(sealed(1, 11+ReplayWindow))
				take(b)
				take(a)
			}, []string{"10", fmt.Sprint(11 + ReplayWindow), "12"}, map[string]int{"replayed": 1}},
			{"forged in its header, its payload, its tag, and its SSRC", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				p.Secured(p.keys)
				for _, at := range []int{3, 8, 12, 20} {
					b := sealed(1, uint16(at))
					b[at] ^= 1
					take(b)
				}
				take(sealed(1, 1))
			}, []string{"1"}, map[string]int{"forged": 4}},
			{"too short", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				p.Secured(p.keys)
				b := sealed(1, 1)
				take(b[:1])
				take(b[:11])
				take(b[:14])
			}, nil, map[string]int{"malformed": 3}},
			{"after the end", func(p *keyedPair, sealed func(uint32, uint16) []byte, take func([]byte)) {
				take(sealed(1, 1))
				p.Close()
				take(sealed(1, 2))
				p.Secured(p.keys)
				take(sealed(1, 3))
			}, nil, nil},
		} {
			t.Run(fmt.Sprint(profile, ", ", c.name), func(t *testing.T) {
				p := newKeyedPair(t, profile)
				c.do(p, func(ssrc uint32, seq uint16) []byte { return p.sealed(t, ssrc, seq) }, func(b []byte) {
					if !p.Take(bytes.Clone(b), time.Now()) {
						t.Error("left to pion")
					}
				})
				if fmt.Sprint(p.got) != fmt.Sprint(c.got) {
					t.Errorf("accepted %v, want %v", p.got, c.got)
				}
				if fmt.Sprint(p.refused) != fmt.Sprint(c.refused) && len(p.refused)+len(c.refused) > 0 {
					t.Errorf("refused %v, want %v", p.refused, c.refused)
				}
			})
		}
	}
}

// RTCP is left to pion.
func TestOpenerLeavesRTCP(t *testing.T) {
	p := newKeyedPair(t, dtls.SRTP_AEAD_AES_128_GCM)
	for _, kind := range []byte{192, 200, 205, 223} {
		if p.Take([]byte{0x80, kind, 0, 1, 0, 0, 0, 0}, time.Now()) {
			t.Errorf("packets of type %d are taken", kind)
		}
	}
}

// To decrypt a packet allocates nothing.
func TestDecryptingDoesNotAllocate(t *testing.T) {
	p := newKeyedPair(t, dtls.SRTP_AEAD_AES_128_GCM)
	p.accept = func([]byte, time.Time) {}
	p.Secured(p.keys)
	var all [][]byte
	for i := range uint16(1100) {
		all = append(all, p.sealed(t, 1, i))
	}
	now := time.Now()
	if n := testing.AllocsPerRun(1000, func() {
		p.Take(all[0], now)
		all = all[1:]
	}); n != 0 || len(p.refused) > 0 {
		t.Errorf("%v allocations a packet, refused %v", n, p.refused)
	}
}

// Nothing that comes from a network passes that the far end has not sent, and
// nothing of it harms what the far end sends next.
func FuzzOpener(f *testing.F) {
	p := newKeyedPair(f, dtls.SRTP_AEAD_AES_128_GCM)
	good := p.sealed(f, 1, 7)
	f.Add([]byte{}, byte(0))
	f.Add(good, byte(0))
	f.Add(good, byte(1))
	f.Add(good[:12], byte(0))
	f.Add(append([]byte{0x9f, 96}, good[2:]...), byte(0))                                                   // with CSRCs
	f.Add(append([]byte{0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0xff, 0xff}, good...), byte(0)) // endless extensions
	f.Add(append([]byte{0xb0, 96}, good[2:]...), byte(0))                                                   // padded
	f.Add(append([]byte{0x80, 200}, good[2:]...), byte(0))                                                  // RTCP
	f.Fuzz(func(t *testing.T, b []byte, profile byte) {
		p := newKeyedPair(t, []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80}[profile%2])
		early := bytes.Clone(b)
		p.Take(early, time.Now())
		p.Secured(p.keys)
		p.Take(b, time.Now())
		for _, got := range p.got {
			if got != "7" { // the seed
				t.Fatalf("accepted %x", got)
			}
		}
		before := len(p.got)
		p.Take(p.sealed(t, 2, 9), time.Now())
		if len(p.got) != before+1 {
			t.Fatalf("what the far end sent is refused: %v", p.refused)
		}
	})
}

// BenchmarkOpen decrypts a packet of 1,160 bytes.
func BenchmarkOpen(b *testing.B) {
	for _, profile := range []dtls.SRTPProtectionProfile{dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80} {
		b.Run(srtp.ProtectionProfile(profile).String(), func(b *testing.B) {
			p := newKeyedPair(b, profile)
			p.accept = func([]byte, time.Time) {}
			p.Secured(p.keys)
			now, payload := time.Now(), make([]byte, 1160)
			sealed := make([][]byte, 1024)
			b.ReportAllocs()
			b.SetBytes(int64(len(payload)))
			for i := 0; b.Loop(); i++ {
				if i%len(sealed) == 0 {
					b.StopTimer()
					for j := range sealed {
						plain, err := packet(uint16(i+j), 0, payload).Marshal()
						if err != nil {
							b.Fatal(err)
						}
						if sealed[j], err = p.far.EncryptRTP(nil, plain, nil); err != nil {
							b.Fatal(err)
						}
					}
					b.StartTimer()
				}
				p.Take(sealed[i%len(sealed)], now)
			}
			if len(p.refused) > 0 {
				b.Fatalf("refused: %v", p.refused)
			}
		})
	}
}
