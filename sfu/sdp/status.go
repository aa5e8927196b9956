package sdp

// A SectionStatus is the status of one media section of a publisher.
type SectionStatus struct {
	Section int     `json:"section"` // in the offer, from 0
	Mid     string  `json:"mid"`
	Kind    string  `json:"kind"`
	Codec   string  `json:"codec"`
	State   string  `json:"state"` // "waiting" for the first packet, "flowing", "stalled"
	SSRC    uint32  `json:"ssrc,omitempty"`
	Layer   string  `json:"layer,omitempty"` // of simulcast: its RID, or its number in ssrc-group:SIM
	Width   int     `json:"width,omitempty"` // px, where keyframes tell; 0: unknown
	Height  int     `json:"height,omitempty"`
	Packets int64   `json:"packets"`
	Lost    int64   `json:"lost"`
	Changes int     `json:"ssrc_changes"`
	Silent  float64 `json:"silent_ms"` // since the last packet
}
