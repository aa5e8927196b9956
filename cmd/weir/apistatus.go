package main

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht"
	"weir/dht/directory"
	"weir/dht/scale"
	"weir/sfu"
)

// requests are those to publish and to view that have not been answered.
type requests struct {
	SettingUp int `json:"setting_up"`
	Waiting   int `json:"waiting"` // for a stream, for room elsewhere, or for their turn
}

// status is the admin API's.
type status struct {
	PeerID     peer.ID        `json:"peer_id"`
	Name       string         `json:"name"`
	Release    string         `json:"release"`
	Network    string         `json:"network"`
	Discovery  directory.Mode `json:"discovery"`
	Servers    int            `json:"servers"` // listed
	Region     string         `json:"region"`
	State      capacity.State `json:"state"`
	Stress     float64        `json:"stress"`
	Uptime     int64          `json:"uptime_ms"`
	P2P        []string       `json:"p2p"`
	HTTP       string         `json:"http"`
	TLS        *tlsStatus     `json:"tls,omitempty"`
	Admin      string         `json:"admin"`
	Media      string         `json:"media"`
	Policy     uint64         `json:"policy"`
	Overflow   sfu.Overflow   `json:"overflow"`
	Publishers int            `json:"publishers"`
	Viewers    int            `json:"viewers"`
	Streams    int            `json:"streams"`
	Links      int            `json:"links"`
	Leases     int            `json:"leases"`
	Holds      int            `json:"holds"` // records of others
	Peers      int            `json:"peers"` // connected
	Goroutines int            `json:"goroutines"`
	Drain      drainStatus    `json:"drain"`
	Waiting    int64          `json:"waiting"` // requests that wait for a server
	Releasable bool           `json:"releasable"`
	Requests   requests       `json:"requests"`

	// Provision is the state in each region where this node has servers started.
	Provision map[string]scale.Status `json:"provision,omitempty"`
	// NotForwarded counts RTP packets that came and could not be forwarded, by why.
	NotForwarded map[string]int64 `json:"not_forwarded"`

	Record  capacity.Record `json:"record"`
	Traffic []dht.Traffic   `json:"traffic"`
}

// drainStatus is a drain as the admin API shows it.
type drainStatus struct {
	Draining bool       `json:"draining"`
	Exit     bool       `json:"exit"` // the process ends when empty, or at the deadline
	Deadline *time.Time `json:"deadline,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Left     int        `json:"left"` // sessions, leases and pulls served
}

// drainRequest is the body of POST /api/v1/drain.
type drainRequest struct {
	DeadlineMillis int64 `json:"deadline_ms"` // 0: none
	Exit           bool  `json:"exit"`
}

// tlsStatus is the admin API's.
type tlsStatus struct {
	Names    []string  `json:"names"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	Redirect string    `json:"redirect,omitempty"` // the plain port that leads to it
}

// readyInfo is the content of --ready-file.
type readyInfo struct {
	PeerID  string   `json:"peer_id"`
	Name    string   `json:"name"`
	P2P     []string `json:"p2p"` // each with /p2p/ID
	HTTP    string   `json:"http"`
	Admin   string   `json:"admin"`
	Metrics string   `json:"metrics,omitempty"`
	Media   string   `json:"media"`
	PID     int      `json:"pid"`
	Network string   `json:"network"`
	DataDir string   `json:"data_dir"`
}

// inviteReply is what GET /api/v1/invite returns.
type inviteReply struct {
	Token   string `json:"token"`
	Network string `json:"network"`
}

// A pingReply is one ping's result.
type pingReply struct {
	Peer peer.ID `json:"peer"`
	RTT  float64 `json:"rtt_ms"`
	Err  string  `json:"err,omitempty"`
}

// endedSession is a session that was ended by order.
type endedSession struct {
	ID     string `json:"id"`
	Stream string `json:"stream"`
	Client string `json:"client"`
}
