package sdp

import (
	"slices"
	"strconv"
	"strings"
)

// isToken reports whether s is visible ASCII only: nothing that could end a
// line or a field.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func notToken(s string) bool { return !isToken(s) }

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// fingerprintBytes are the hashes that pion can check, by their length.
var fingerprintBytes = map[string]int{"sha-1": 20, "sha-224": 28, "sha-256": 32, "sha-384": 48, "sha-512": 64}

func parseFingerprint(value string) (string, error) {
	hash, digest, _ := strings.Cut(value, " ")
	hash, digest = strings.ToLower(hash), strings.TrimSpace(digest)
	n, ok := fingerprintBytes[hash]
	parts := strings.Split(digest, ":")
	if !ok || len(parts) != n || slices.ContainsFunc(parts, func(p string) bool {
		_, err := strconv.ParseUint(p, 16, 8)
		return err != nil || len(p) != 2
	}) {
		return "", bad("a=fingerprint:%s: want sha-256 and its 32 bytes", clip(value))
	}
	return hash + " " + strings.ToUpper(digest), nil
}
