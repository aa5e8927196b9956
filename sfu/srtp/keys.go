package srtp

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"slices"
	"strings"
	"sync"

	"github.com/pion/dtls/v3"
	"github.com/pion/dtls/v3/pkg/crypto/prf"
	"github.com/pion/dtls/v3/pkg/protocol/extension"
	"github.com/pion/dtls/v3/pkg/protocol/handshake"
	"github.com/pion/webrtc/v4"
)

// A KeyWatch learns the SRTP keys of one DTLS handshake in which this end is the
// server, by pion's public hooks: the ServerHello has the server's random value,
// the chosen cipher suite and SRTP profile, and the key log has the client's
// random value and the master secret. In a handshake as client it learns
// nothing.
type KeyWatch struct {
	mu      sync.Mutex
	random  []byte // the server's
	hash    func() hash.Hash
	profile dtls.SRTPProtectionProfile
	client  []byte // the client's random value
	master  []byte
}

// Watch makes s report to k.
func (k *KeyWatch) Watch(s *webrtc.SettingEngine) {
	s.SetDTLSServerHelloMessageHook(k.serverHello)
	s.SetDTLSKeyLogWriter(k)
}

func (k *KeyWatch) serverHello(m handshake.MessageServerHello) handshake.Message {
	k.mu.Lock()
	defer k.mu.Unlock()
	random := m.Random.MarshalFixed()
	k.random, k.hash, k.profile = random[:], sha256.New, 0
	if m.CipherSuiteID != nil {
		k.hash = hashOf(dtls.CipherSuiteID(*m.CipherSuiteID))
	}
	for _, e := range m.Extensions {
		if srtp, ok := e.(*extension.UseSRTP); ok && len(srtp.ProtectionProfiles) == 1 {
			k.profile = srtp.ProtectionProfiles[0]
		}
	}
	return &m
}

// hashOf returns the hash of a cipher suite's key derivation.
func hashOf(suite dtls.CipherSuiteID) func() hash.Hash {
	switch suite {
	case dtls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, dtls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
		return sha512.New384
	}
	return sha256.New
}

// Write implements io.Writer for the key log, which has one line for a
// handshake: "CLIENT_RANDOM", the client's random value and the master secret,
// both in hexadecimal.
func (k *KeyWatch) Write(line []byte) (int, error) {
	fields := strings.Fields(string(line))
	if len(fields) != 3 || fields[0] != "CLIENT_RANDOM" {
		return len(line), nil
	}
	client, err := hex.DecodeString(fields[1])
	if err != nil {
		return 0, err
	}
	master, err := hex.DecodeString(fields[2])
	if err != nil {
		return 0, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.client, k.master = client, master
	return len(line), nil
}

// Keys are the master keys and salts of a DTLS connection for SRTP.
type Keys struct {
	profile        dtls.SRTPProtectionProfile
	client, server masterKey // of what each of both ends sends
}

type masterKey struct{ key, salt []byte }

// Take returns the keys, after the handshake, and forgets the secret. They are
// nil for the client of a handshake.
func (k *KeyWatch) Take() *Keys {
	k.mu.Lock()
	defer k.mu.Unlock()
	master := k.master
	k.master = nil
	var size, salt int
	switch k.profile {
	case dtls.SRTP_AES128_CM_HMAC_SHA1_80:
		size, salt = 16, 14
	case dtls.SRTP_AEAD_AES_128_GCM:
		size, salt = 16, saltSize
	case dtls.SRTP_AEAD_AES_256_GCM:
		size, salt = 32, saltSize
	}
	if size == 0 || master == nil || k.random == nil {
		return nil
	}
	// RFC 5764, section 4.2: the client's key, the server's, and their salts.
	seed := slices.Concat([]byte("EXTRACTOR-dtls_srtp"), k.client, k.random)
	material, err := prf.PHash(master, seed, 2*size+2*salt, k.hash)
	if err != nil {
		return nil // never: a hash takes any seed
	}
	keys, salts := material[:2*size], material[2*size:]
	return &Keys{k.profile, masterKey{keys[:size], salts[:salt]}, masterKey{keys[size:], salts[salt:]}}
}

// Sealer returns the Sealer of what the server sends; nil: the profile is not
// AES-GCM.
func (k *Keys) Sealer() *Sealer {
	if k == nil || k.profile == dtls.SRTP_AES128_CM_HMAC_SHA1_80 {
		return nil
	}
	return NewSealer(k.server.key, k.server.salt)
}
