// Package signed seals and opens the values that nodes and the network's
// operator sign: records and their updates, leases, tickets and policies.
//
// For each there is a Seal function, from a checked value and a private key to
// bytes, and an Open function, from untrusted bytes to a value of which every
// field is within its bounds, or an error that wraps one of capacity's Err
// variables. The signed form is a libp2p signed envelope (RFC 0002) around a
// message of capacity/pb; kinds.go distinguishes the kinds. It is pure: the
// time is passed in, and no state is kept.
package signed
