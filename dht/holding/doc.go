// Package holding is a holder of records as others meet it: it answers the requests
// of /records/1 and takes in what comes by datagram, but for WATCH, whose stream
// package dht owns.
//
// In come messages and the peer that the handshake names; out go answers. A
// [Holder] starts no goroutines and sends nothing. What it keeps is a
// [holder.Table]; whether it is to keep it, and what it tells publishers of other
// holders, a [directory.Directory] says. Nobody trusts a holder: whoever uses a
// record verifies it.
package holding
