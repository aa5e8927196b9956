package api

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht"
)

// A Record is one published record as found, valid or not.
type Record struct {
	Record  *capacity.Record `json:"record,omitempty"` // nil if it cannot be decoded
	Node    peer.ID          `json:"node"`
	Signer  peer.ID          `json:"signer,omitempty"`
	Bytes   int              `json:"bytes"`
	Valid   bool             `json:"valid"`
	Error   string           `json:"error,omitempty"`
	Age     float64          `json:"age_ms"`      // issue time by its node's clock, now by ours
	TTLLeft float64          `json:"ttl_left_ms"` // likewise
	HeldBy  []peer.ID        `json:"held_by"`
	HeldFor []float64        `json:"held_for_ms"` // by each of HeldBy, since it got its copy
	Copies  []RecordCopy     `json:"copies,omitempty"`
	Sealed  []byte           `json:"sealed,omitempty"`
}

// A RecordCopy is one copy of a node's record, of the newest or of an older one
// that its holder still has.
type RecordCopy struct {
	Holder  peer.ID   `json:"holder"`
	Topic   dht.Topic `json:"topic"`
	HeldFor float64   `json:"held_for_ms"`
	Seq     uint64    `json:"seq"`
	Old     bool      `json:"old"` // others hold a newer one in the topic
}

// A Records is the records held for a topic, and which holders have answered:
// records held only by the others are missing.
type Records struct {
	Records []Record    `json:"records"`
	Hearing dht.Hearing `json:"hearing"`
}

// RecordChange is one change of a watched topic, as JSON.
type RecordChange struct {
	Synced bool `json:"synced,omitempty"`
	// Hearing, with Synced, says which holders had not reported theirs by then.
	Hearing *dht.Hearing `json:"hearing,omitempty"`
	Gone    peer.ID      `json:"gone,omitempty"`
	Entry   *Record      `json:"entry,omitempty"`
}
