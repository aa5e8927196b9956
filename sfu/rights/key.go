package rights

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"weir/capacity"
)

// The accepted algorithms, with their JWS names (RFC 7518, RFC 8037). A key is
// for one of them.
const (
	EdDSA = "EdDSA" // with Ed25519
	HS256 = "HS256" // with a secret shared by the token issuer and this node
)

const (
	// MaxKeySet bounds a set of keys, in bytes.
	MaxKeySet = 64 << 10
	maxKeys   = 64
	maxKeyID  = 128 // bytes
	// minSecret is the least size of a secret for HS256, in bytes (RFC 7518,
	// section 3.2).
	minSecret = 32
	maxSecret = 1 << 10
)

// A Key verifies tokens.
type Key struct {
	ID        string // kid; without one, the thumbprint
	Algorithm string

	public ed25519.PublicKey
	secret []byte
	print  string // RFC 7638 thumbprint, of a secret by its HMAC; equal for equal keys
}

// verifier returns the key in the type that the JWT library wants.
func (k *Key) verifier() any {
	if k.Algorithm == HS256 {
		return k.secret
	}
	return k.public
}

// A KeySet is a set of keys that verify tokens. The zero value is empty.
type KeySet struct {
	keys []*Key
	// Skipped are the keys of the set that cannot verify tokens of weir, each
	// with the reason.
	Skipped []string
}

// Len returns the number of keys.
func (s *KeySet) Len() int { return len(s.keys) }

// Secret reports whether one of the keys is a secret.
func (s *KeySet) Secret() bool {
	for _, k := range s.keys {
		if k.Algorithm == HS256 {
			return true
		}
	}
	return false
}

// jwk is a key as JSON (RFC 7517, RFC 8037).
type jwk struct {
	Type      string   `json:"kty"`
	Curve     string   `json:"crv,omitempty"`
	X         string   `json:"x,omitempty"`
	D         string   `json:"d,omitempty"`
	K         string   `json:"k,omitempty"`
	ID        string   `json:"kid,omitempty"`
	Algorithm string   `json:"alg,omitempty"`
	Use       string   `json:"use,omitempty"`
	Ops       []string `json:"key_ops,omitempty"`
}

type jwks struct {
	Keys *[]json.RawMessage `json:"keys"`
}

// ParseKeys parses a JWK set. Secrets allows secrets in it: only a set from a
// file may have them. Keys of other kinds are skipped. The error reports a
// broken key of a supported kind, a private key, or a set whose keys are all
// skipped.
func ParseKeys(b []byte, secrets bool) (*KeySet, error) {
	if len(b) > MaxKeySet {
		return nil, fmt.Errorf("more than %d bytes", MaxKeySet)
	}
	var list jwks
	if err := json.Unmarshal(b, &list); err != nil || list.Keys == nil {
		return nil, ErrNoKeySet
	}
	if len(*list.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys, at most %d are taken", len(*list.Keys), maxKeys)
	}
	set := &KeySet{}
	seen := map[string]bool{}
	for i, raw := range *list.Keys {
		var j jwk
		if json.Unmarshal(raw, &j) != nil {
			return nil, fmt.Errorf("key %d is no JWK", i+1)
		}
		k, skipped, err := j.key(secrets)
		switch {
		case err != nil:
			return nil, fmt.Errorf("key %d (kid %s): %w", i+1, word(j.ID), err)
		case skipped != "":
			set.Skipped = append(set.Skipped, fmt.Sprintf("key %d (kid %s): %s", i+1, word(j.ID), skipped))
			continue
		case seen[k.ID]:
			return nil, fmt.Errorf("key %d: there is another one with kid %s", i+1, word(k.ID))
		}
		seen[k.ID] = true
		set.keys = append(set.keys, k)
	}
	if len(set.keys) == 0 && len(set.Skipped) > 0 {
		return nil, fmt.Errorf("no key that can be used: %s", set.Skipped[0])
	}
	return set, nil
}

// key converts j to a key, or returns why it is skipped.
func (j *jwk) key(secrets bool) (k *Key, skipped string, err error) {
	if len(j.ID) > maxKeyID || capacity.Printable(j.ID, maxKeyID) != j.ID {
		return nil, "", fmt.Errorf("the kid is no printable text of up to %d bytes", maxKeyID)
	}
	if j.Use != "" && j.Use != "sig" {
		return nil, "it is not for signatures", nil
	}
	switch {
	case j.Type == "OKP" && j.Curve == "Ed25519":
		if j.D != "" {
			return nil, "", ErrPrivateKey
		}
		if j.Algorithm != "" && j.Algorithm != EdDSA && j.Algorithm != "Ed25519" { // RFC 9864
			return nil, "", fmt.Errorf("alg %s is not for Ed25519", word(j.Algorithm))
		}
		x, err := segment(j.X)
		if err != nil || len(x) != ed25519.PublicKeySize {
			return nil, "", fmt.Errorf("x is not base64url of %d bytes", ed25519.PublicKeySize)
		}
		if trivial(x) {
			return nil, "", errors.New("x is no key: signatures by it can be forged")
		}
		k = &Key{ID: j.ID, Algorithm: EdDSA, public: x, print: thumbprint(x)}
	case j.Type == "oct":
		if !secrets {
			return nil, "it is a secret, and these are taken from a file only", nil
		}
		if j.Algorithm != HS256 {
			return nil, "", fmt.Errorf("a secret is taken for %s only: say so by alg", HS256)
		}
		secret, err := segment(j.K)
		if err != nil || len(secret) < minSecret || len(secret) > maxSecret {
			return nil, "", fmt.Errorf("k is not base64url of %d to %d bytes", minSecret, maxSecret)
		}
		k = &Key{ID: j.ID, Algorithm: HS256, secret: secret, print: mac(secret, "weir-key-print")}
	default:
		return nil, fmt.Sprintf("taken are keys of kty OKP and crv Ed25519, and this one is %s %s", word(j.Type), word(j.Curve)), nil
	}
	if k.ID == "" {
		k.ID = k.print
	}
	return k, "", nil
}

// trivial reports whether x is a point of order 1, 2 or 4, such as 32 zeros,
// which a fault may leave in the place of a key: its y is 0, 1 or -1, modulo
// 2²⁵⁵ - 19 (RFC 8032, section 5.1).
func trivial(x []byte) bool {
	be := slices.Clone(x)
	slices.Reverse(be)
	be[0] &= 0x7f // the sign of the other coordinate
	p := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	y := new(big.Int).SetBytes(be)
	y.Add(y, big.NewInt(1)).Mod(y, p) // 0, 1, 2 for -1, 0, 1
	return y.Cmp(big.NewInt(2)) <= 0
}

func segment(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}

// thumbprint returns the thumbprint of a public key (RFC 7638, RFC 8037
// appendix A.3).
func thumbprint(x []byte) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + base64.RawURLEncoding.EncodeToString(x) + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// A PrivateKey signs tokens.
type PrivateKey struct {
	public *Key
	signer any // ed25519.PrivateKey, or a secret
}

// NewKey makes an Ed25519 key. For an empty id, the ID is the key's thumbprint.
func NewKey(id string) (*PrivateKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return privateKey((&jwk{Type: "OKP", Curve: "Ed25519", X: text(public), ID: id}), private)
}

// NewSecret makes a secret for HS256. For an empty id, the ID is derived from
// the secret.
func NewSecret(id string) (*PrivateKey, error) {
	secret := make([]byte, minSecret)
	_, _ = rand.Read(secret) // never fails
	return privateKey((&jwk{Type: "oct", K: text(secret), Algorithm: HS256, ID: id}), secret)
}

func privateKey(public *jwk, signer any) (*PrivateKey, error) {
	k, skipped, err := public.key(true)
	if skipped != "" {
		err = errors.New(skipped)
	}
	if err != nil {
		return nil, err
	}
	return &PrivateKey{public: k, signer: signer}, nil
}

func text(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// ID returns the key's kid.
func (k *PrivateKey) ID() string { return k.public.ID }

// Private returns the key as JSON, to be kept: a private JWK, or for HS256 a
// set with the secret, which nodes need as well.
func (k *PrivateKey) Private() []byte {
	if k.public.Algorithm == HS256 {
		return k.Public()
	}
	private := k.signer.(ed25519.PrivateKey)
	return indent(jwk{Type: "OKP", Curve: "Ed25519", X: text(k.public.public), D: text(private.Seed()), ID: k.public.ID, Algorithm: EdDSA, Use: "sig"})
}

// Public returns the JWK set for nodes.
func (k *PrivateKey) Public() []byte {
	j := jwk{Type: "OKP", Curve: "Ed25519", X: text(k.public.public), ID: k.public.ID, Algorithm: EdDSA, Use: "sig"}
	if k.public.Algorithm == HS256 {
		j = jwk{Type: "oct", K: text(k.public.secret), ID: k.public.ID, Algorithm: HS256, Use: "sig"}
	}
	return indent(map[string][]jwk{"keys": {j}})
}

func indent(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic("rights: a key does not marshal: " + err.Error())
	}
	return append(b, '\n')
}

// ParsePrivateKey parses the output of Private. The error never contains a part
// of b.
func ParsePrivateKey(b []byte) (*PrivateKey, error) {
	if len(b) > MaxKeySet {
		return nil, fmt.Errorf("more than %d bytes", MaxKeySet)
	}
	var one struct {
		jwk
		Keys []jwk `json:"keys"`
	}
	if json.Unmarshal(b, &one) != nil {
		return nil, ErrNoPrivateKey
	}
	j := one.jwk
	if len(one.Keys) == 1 {
		j = one.Keys[0]
	}
	if j.Type == "oct" {
		k, _, err := j.key(true)
		if err != nil {
			return nil, err
		}
		return &PrivateKey{public: k, signer: k.secret}, nil
	}
	seed, err := segment(j.D)
	if err != nil || len(seed) != ed25519.SeedSize || j.Type != "OKP" || j.Curve != "Ed25519" {
		if len(one.Keys) > 0 || j.X != "" && j.D == "" {
			return nil, errors.New("it holds public keys, and tokens are signed with the private one")
		}
		return nil, ErrNoPrivateKey
	}
	private := ed25519.NewKeyFromSeed(seed)
	if x := text(private.Public().(ed25519.PublicKey)); j.X != "" && j.X != x {
		return nil, errors.New("its public part is not that of its private part")
	} else {
		j.X = x
	}
	j.D = ""
	return privateKey(&j, private)
}
