// Package signed is what nodes and the network's operator sign: records and
// their updates, leases, tickets and policies.
//
// For each there is a Seal function, from a checked value and a private key to
// bytes, and an Open function, from bytes of anybody to a value of which every
// field is within its bounds, or an error that says what is wrong (one of
// capacity's Err variables). What is signed is a libp2p signed envelope (RFC
// 0002) around a message of capacity/pb; kinds.go tells the kinds apart. It is
// pure: the time is passed in, and no memory is kept.
package signed
