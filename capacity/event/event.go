// Package event is what a node tells of what happened: to sessions, streams
// and links, to placements, to the node itself and to its peers. The console,
// weir events, the log and some metrics are made of it.
//
// It is data only. Who makes events is sfu, dht and cmd; cmd keeps the last
// ones and passes them on.
package event

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Kind is what an event is about, as noun.verb.
type Kind string

// All kinds there are, with what their fields mean besides Time, Stream, Peer
// and Session. List has a line on each for people.
const (
	SessionOpened Kind = "session.opened" // Role, Client, Detail: what of its offer is not taken
	SessionClosed Kind = "session.closed" // Role, Client, Reason and Detail: why, Elapsed, Packets, Bytes, Lost

	StreamStarted Kind = "stream.started" // where it is published; Detail: its codecs, Elapsed: since its publisher came
	StreamEnded   Kind = "stream.ended"   // where it was published; Elapsed: since it started

	MediaStalled      Kind = "media.stalled"      // of an accepted section; Reason: never-sent or silent, Detail, Elapsed: how long
	MediaResumed      Kind = "media.resumed"      // Detail, Elapsed: how long nothing came, if something came before
	MediaChanged      Kind = "media.changed"      // Detail: from which SSRC to which
	MediaDropped      Kind = "media.dropped"      // once a session for each Reason, Detail
	PublisherReplaced Kind = "publisher.replaced" // Session: the new one, Detail, Elapsed: how long the old one had been silent

	Redirected Kind = "redirect" // Peer: where to, Role, Client, Reason and Detail: why
	Refused    Kind = "refused"  // Role, Client, Reason: a word, Detail

	LinkOpened Kind = "link.opened" // Elapsed: what it took
	LinkClosed Kind = "link.closed" // Reason: lost, if not in good order; Detail: why, Elapsed: since it was opened

	PullStarted Kind = "pull.started"
	PullWaiting Kind = "pull.waiting" // Detail: what there is no room for
	PullReady   Kind = "pull.ready"   // Elapsed: what it took
	PullFailed  Kind = "pull.failed"  // Reason: NotLive or nothing, Detail: why
	PullLost    Kind = "pull.lost"    // Peer: the carrier that has gone, Detail: why
	PullResumed Kind = "pull.resumed" // Peer: the new carrier, Elapsed: the gap
	PullEnded   Kind = "pull.ended"   // Detail: why

	Placement Kind = "placement" // Peer: the node chosen, if any; Reason: why none was; Elapsed

	NodeReady    Kind = "node.ready"    // Reason: "alone", if no bootstrap peer of its network was reached
	NodeCopied   Kind = "node.copied"   // Detail: where the other process is
	NodeFull     Kind = "node.full"     // Reason: of what, Detail
	NodeFree     Kind = "node.free"     // Elapsed: how long it was full
	NodeEnding   Kind = "node.ending"   // Detail: what it still has
	DrainStarted Kind = "drain.started" // Detail: why
	DrainEnded   Kind = "drain.ended"
	Released     Kind = "released"

	PeerLost Kind = "peer.lost" // Detail: how it was noticed
	PeerBack Kind = "peer.back" // Elapsed: how long it was lost

	PolicyApplied Kind = "policy.applied" // Detail: which, and which one before
	PolicyRefused Kind = "policy.refused" // Detail: why

	CertificateApplied  Kind = "certificate.applied"  // Detail: of whom, until when, by whom
	CertificateFailed   Kind = "certificate.failed"   // Reason: a word, Detail: why, and which one stays
	CertificateExpiring Kind = "certificate.expiring" // Reason: expired, once it has; Detail: as of the first
	KeysApplied         Kind = "keys.applied"         // Detail: where from, and how many
	KeysRefused         Kind = "keys.refused"         // Detail: where from, and why
	ConfigReloaded      Kind = "config.reloaded"      // Detail: what changed, and what needs a restart
	ConfigRefused       Kind = "config.refused"       // Reason: refused (nothing is applied) or failed (but for the files of a part), Detail: why

	ProvisionStarted  Kind = "provision.started"  // a server, by this node's hook; Detail, Elapsed
	ProvisionFailed   Kind = "provision.failed"   // Detail: why
	ProvisionMost     Kind = "provision.most"     // Detail: why
	ProvisionArrived  Kind = "provision.arrived"  // Detail
	ProvisionLate     Kind = "provision.late"     // Detail
	ProvisionReleased Kind = "provision.released" // Peer, Detail
	ProvisionPlaced   Kind = "provision.placed"   // Peer, Detail, Elapsed
	ProvisionRefused  Kind = "provision.refused"  // Detail, Elapsed
)

// NotLive is the reason of a failed pull that somebody asked for a stream that
// nobody publishes, as players do that wait for one.
const NotLive = "not-live"

// Event is something that happened. What a kind does not need is empty.
type Event struct {
	Seq     uint64    `json:"seq"` // of this node's events, from 1; 0 until the node has taken it in
	Time    time.Time `json:"time"`
	Kind    Kind      `json:"kind"`
	Stream  string    `json:"stream,omitempty"`
	Peer    peer.ID   `json:"peer,omitempty"`
	Name    string    `json:"peer_name,omitempty"` // of Peer: its own claim
	Session string    `json:"session,omitempty"`
	Role    string    `json:"role,omitempty"`     // of a session: "publisher" or "viewer"
	Client  string    `json:"client,omitempty"`   // its address, as seen from here
	Trace   string    `json:"trace_id,omitempty"` // of the request that it belongs to
	Reason  string    `json:"reason,omitempty"`   // a word: of a refusal, which may be another node's, or of why a session is over
	Detail  string    `json:"detail,omitempty"`   // for people
	Elapsed float64   `json:"elapsed_ms,omitempty"`
	Packets int64     `json:"packets,omitempty"`
	Bytes   int64     `json:"bytes,omitempty"`
	Lost    int64     `json:"lost,omitempty"` // packets
}

// A Described kind is one with a line for people.
type Described struct {
	Kind Kind
	Doc  string
}

// List is every kind there is.
func List() []Described {
	return []Described{
		{SessionOpened, "a client's offer was accepted"},
		{SessionClosed, "a client's session is over"},
		{StreamStarted, "the first media of a stream came from its publisher"},
		{StreamEnded, "a stream that had started is over: its publisher has gone, and no other has taken it over"},
		{MediaStalled, "a publisher sends nothing in a section that was accepted"},
		{MediaResumed, "media flows again, or at last"},
		{MediaChanged, "a publisher's media goes on under another SSRC"},
		{MediaDropped, "packets of a publisher cannot be forwarded; the status of its session counts them"},
		{PublisherReplaced, "a silent publisher's stream was taken over by a new one of the same name"},
		{Redirected, "a client was sent to another node, since this one has no room"},
		{Refused, "a client was refused: nobody has room, its offer cannot be taken, or it has no right"},
		{LinkOpened, "a cascade link to another node is up"},
		{LinkClosed, "a cascade link is closed or lost"},
		{PullStarted, "a stream is looked for at other nodes"},
		{PullWaiting, "no carrier of a stream has room: it is tried again"},
		{PullReady, "a stream is pulled from another node"},
		{PullFailed, "a stream could not be pulled"},
		{PullLost, "the node from which a stream was pulled is lost"},
		{PullResumed, "the stream goes on from another node"},
		{PullEnded, "a stream is not pulled any more"},
		{Placement, "a node was chosen for a client or a pull, or nobody was"},
		{NodeReady, "this node is in the network"},
		{NodeCopied, "another process uses this node's identity"},
		{NodeFull, "this node takes nothing more, for want of a resource"},
		{NodeFree, "this node has room again"},
		{NodeEnding, "this node ends"},
		{DrainStarted, "this node takes nothing new, by order"},
		{DrainEnded, "this node takes placements again"},
		{Released, "this node ends, since it was idle and is not needed"},
		{PeerLost, "another node does not answer any more"},
		{PeerBack, "another node answers again"},
		{PolicyApplied, "another policy is in force"},
		{PolicyRefused, "a policy was not applied"},
		{CertificateApplied, "the public port has another certificate"},
		{CertificateFailed, "a certificate was not put in force: the one before stays"},
		{CertificateExpiring, "the certificate of the public port expires soon, or has"},
		{KeysApplied, "other keys of tokens, or secrets of tickets, are in force"},
		{KeysRefused, "keys of tokens or secrets of tickets could not be read: those before stay in force"},
		{ConfigReloaded, "the configuration was read again"},
		{ConfigRefused, "the configuration was read again and is not in force, or not all of it"},
		{ProvisionStarted, "the hook has started a server"},
		{ProvisionFailed, "the hook has failed to start a server"},
		{ProvisionMost, "no server was started: there are as many as may be, or one was started just now"},
		{ProvisionArrived, "the server that was started is in the network"},
		{ProvisionLate, "the server that was started has not come in time"},
		{ProvisionReleased, "an idle node was given leave to end"},
		{ProvisionPlaced, "a client that waited was sent to the new server"},
		{ProvisionRefused, "a client that waited for a server was refused"},
	}
}
