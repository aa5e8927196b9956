package api

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"weir/capacity"
	"weir/dht/directory"
	"weir/dht/overlay"
	"weir/dht/scale"
	"weir/sfu"
)

// Defaults of weir node, by which clients find it.
const (
	DefaultAdmin   = "127.0.0.1:8081" // HOST:PORT of the admin API
	DefaultNetwork = "open"           // name of the network
)

// MaxPings bounds one request for pings.
const MaxPings = 1000

// Requests are the requests to publish and to view that have not been answered.
type Requests struct {
	SettingUp int `json:"setting_up"`
	Waiting   int `json:"waiting"` // for a stream, for room elsewhere, or for their turn
}

// Status is the answer of the admin API's /status.
type Status struct {
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
	TLS        *TLS           `json:"tls,omitempty"`
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
	Drain      Drain          `json:"drain"`
	Waiting    int64          `json:"waiting"` // requests that wait for a server
	Releasable bool           `json:"releasable"`
	Requests   Requests       `json:"requests"`

	// Provision is the state of each region in which this node has servers
	// started.
	Provision map[string]scale.Status `json:"provision,omitempty"`
	// NotForwarded counts received RTP packets that could not be forwarded, by
	// reason.
	NotForwarded map[string]int64 `json:"not_forwarded"`

	Record  capacity.Record `json:"record"`
	Traffic []overlay.Usage `json:"traffic"`
}

// Drain is a drain as the admin API shows it.
type Drain struct {
	Draining bool       `json:"draining"`
	Exit     bool       `json:"exit"` // the process ends when empty, or at the deadline
	Deadline *time.Time `json:"deadline,omitempty"`
	Reason   string     `json:"reason,omitempty"`
	Left     int        `json:"left"` // sessions, leases and pulls served
}

// DrainRequest is the body of POST /api/v1/drain.
type DrainRequest struct {
	DeadlineMillis int64 `json:"deadline_ms"` // 0: none
	Exit           bool  `json:"exit"`
}

// TLS is the state of https in the admin API.
type TLS struct {
	Names    []string  `json:"names"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	Redirect string    `json:"redirect,omitempty"` // the plain port that redirects to it
}

// Ready is the content of --ready-file.
type Ready struct {
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

// Invitation is what GET /api/v1/invite returns.
type Invitation struct {
	Token   string `json:"token"`
	Network string `json:"network"`
}

// A Ping is one ping's result.
type Ping struct {
	Peer peer.ID `json:"peer"`
	RTT  float64 `json:"rtt_ms"`
	Err  string  `json:"err,omitempty"`
}

// EndedSession is a session that the operator ended.
type EndedSession struct {
	ID     string `json:"id"`
	Stream string `json:"stream"`
	Client string `json:"client"`
}
