package dht

import "weir/dht/seek"

// The largest messages, in bytes, that a peer may send. A frame that announces
// more is refused before anything is allocated for it.
const (
	maxRequest        = 96 << 10 // an ADVERTISE of holding.MaxEntries records
	maxAdvertiseReply = 32 << 10
	maxQueryReply     = seek.MaxQueryReply
	maxFetchReply     = 72 << 10 // inspect.MaxFetch records
	maxEvent          = 2 << 10
	maxReserve        = seek.MaxReserve
	maxProvision      = 4 << 10
)
