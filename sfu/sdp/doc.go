// Package sdp reads the SDP that clients and other nodes send, and writes what
// is taken of it.
//
// In go a client's offer or fragment and another node's description, as bytes
// that are hostile until read: sizes, sections, lines, formats and candidates
// are bounded (see [Limits] and the constants). Out come sections with the
// codecs that weir forwards, an [Offer] of which each section is taken or not,
// the text for pion, written anew from what was understood, and the client's
// answer under its own names. Errors are an [Error], an [Unacceptable] or wrap
// [ErrNoCodec], and are worded for the client.
//
// Nothing here has state, a clock or a goroutine.
package sdp
