package main

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht"
)

// A recordEntry is one published record as found, good or bad.
type recordEntry struct {
	Record  *capacity.Record `json:"record,omitempty"` // nil if it is none
	Node    peer.ID          `json:"node"`
	Signer  peer.ID          `json:"signer,omitempty"`
	Bytes   int              `json:"bytes"`
	Valid   bool             `json:"valid"`
	Error   string           `json:"error,omitempty"`
	Age     float64          `json:"age_ms"`      // since issued, by both clocks
	TTLLeft float64          `json:"ttl_left_ms"` // likewise
	HeldBy  []peer.ID        `json:"held_by"`
	HeldFor []float64        `json:"held_for_ms"` // by each of HeldBy, since it got its copy
	Copies  []recordCopy     `json:"copies,omitempty"`
	Sealed  []byte           `json:"sealed,omitempty"`
}

// A recordCopy is one copy of a node's record, of this one or of an older one
// that its holder still has.
type recordCopy struct {
	Holder  peer.ID   `json:"holder"`
	Topic   dht.Topic `json:"topic"`
	HeldFor float64   `json:"held_for_ms"`
	Seq     uint64    `json:"seq"`
	Old     bool      `json:"old"` // others hold a newer one in the topic
}

// A recordList is what the holders of a topic hold, and which of them have said
// so: what only the others hold is missing.
type recordList struct {
	Records []recordEntry `json:"records"`
	Hearing dht.Hearing   `json:"hearing"`
}

// watchEvent is one change of a watched topic, as JSON.
type watchEvent struct {
	Synced bool `json:"synced,omitempty"`
	// Hearing, with Synced, says which holders had not told theirs by then.
	Hearing *dht.Hearing `json:"hearing,omitempty"`
	Gone    peer.ID      `json:"gone,omitempty"`
	Entry   *recordEntry `json:"entry,omitempty"`
}
