// Package sdp parses the SDP of clients and other nodes, and writes answers,
// and offers for pion.
//
// Input is a client's offer or fragment and another node's description, as
// bytes that are untrusted until parsed: sizes, sections, lines, formats and
// candidates are bounded (see [Limits] and the constants). Output is sections
// with the codecs that weir forwards, an [Offer] of which each section is
// accepted or not, the text for pion, rewritten from the parsed content, and
// the client's answer under its own names. Errors are an [Error], an
// [Unacceptable] or wrap [ErrNoCodec], and are worded for the client.
//
// The package has no state, clock or goroutine.
package sdp
