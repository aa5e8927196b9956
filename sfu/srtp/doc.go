// Package srtp encrypts and decrypts RTP around pion's sessions (RFC 3711, RFC
// 7714), with the keys of a DTLS connection of pion's.
//
// A [KeyWatch] learns the keys. A [Sealer] encrypts one packet into a buffer of
// the caller's; an [Opener] decrypts datagrams in place. The package starts no
// goroutines and does no I/O.
package srtp
