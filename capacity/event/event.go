// Package event defines the events of a node: of sessions, streams and links,
// of placements, of the node itself and of its peers. The console, weir events,
// the log and some metrics are made from them.
//
// It is data only. sfu, dht and cmd make events; cmd keeps the last ones and
// passes them on.
package event

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Kind is the type of an event, as noun.verb.
type Kind string

// All kinds, with the meaning of their fields besides Time, Stream, Peer and
// Session. List has a line on each for people.
const (
	SessionOpened Kind = "session.opened" // Role, Client, Detail: parts of its offer that are not accepted
	SessionClosed Kind = "session.closed" // Role, Client, Reason and Detail: why, Elapsed, Packets, Bytes, Lost

	StreamStarted Kind = "stream.started" // where it is published; Detail: its codecs, Elapsed: since its publisher came
	StreamEnded   Kind = "stream.ended"   // where it was published; Elapsed: since its start

	StreamWaiting  Kind = "stream.waiting"  // where it was published; Elapsed: since the publisher's last sign of life
	StreamOrphaned Kind = "stream.orphaned" // Elapsed: since the origin's last sign of life
	StreamResumed  Kind = "stream.resumed"  // Elapsed: how long it was without publisher or origin

	MediaStalled      Kind = "media.stalled"      // of an accepted section; Reason: never-sent or silent, Detail, Elapsed: how long
	MediaResumed      Kind = "media.resumed"      // Detail, Elapsed: how long nothing came, if something came before
	MediaChanged      Kind = "media.changed"      // Detail: the old and the new SSRC
	MediaDropped      Kind = "media.dropped"      // once a session for each Reason, which is late for a viewer; Detail
	PublisherReplaced Kind = "publisher.replaced" // Session: the new one, Detail, Elapsed: how long the old one had been silent

	Redirected Kind = "redirect" // Peer: the target, Role, Client, Reason and Detail: why
	Refused    Kind = "refused"  // Role, Client, Reason: a word, Detail

	LinkOpened Kind = "link.opened" // Elapsed: time to open it
	LinkClosed Kind = "link.closed" // Reason: lost, if not in good order; Detail: why, Elapsed: since it was opened

	PullStarted Kind = "pull.started"
	PullWaiting Kind = "pull.waiting" // Detail: the resource without room
	PullReady   Kind = "pull.ready"   // Elapsed: time until it was ready
	PullFailed  Kind = "pull.failed"  // Reason: NotLive or nothing, Detail: why
	PullLost    Kind = "pull.lost"    // Peer: the carrier that was lost, Detail: why
	PullResumed Kind = "pull.resumed" // Peer: the new carrier, Elapsed: the gap
	PullMoved   Kind = "pull.moved"   // Peer: the new carrier, Elapsed: time until it took over
	PullEnded   Kind = "pull.ended"   // Detail: why

	Placement Kind = "placement" // Peer: the node chosen, if any; Reason: why none was; Elapsed

	NodeReady    Kind = "node.ready"    // Reason: "alone", if no bootstrap peer of its network was reached
	NodeCopied   Kind = "node.copied"   // Detail: where the other process is
	NodeFull     Kind = "node.full"     // Reason: the resource, Detail
	NodeFree     Kind = "node.free"     // Elapsed: how long it was full
	NodeEnding   Kind = "node.ending"   // Detail: sessions and pulls that are left
	DrainStarted Kind = "drain.started" // Detail: why
	DrainEnded   Kind = "drain.ended"
	Released     Kind = "released"

	PeerLost Kind = "peer.lost" // Detail: how it was noticed
	PeerBack Kind = "peer.back" // Elapsed: how long it was lost

	PolicyApplied Kind = "policy.applied" // Detail: the new version, and the one before
	PolicyRefused Kind = "policy.refused" // Detail: why

	CertificateApplied  Kind = "certificate.applied"  // Detail: its names, expiry and issuer
	CertificateFailed   Kind = "certificate.failed"   // Reason: a word, Detail: why, and the certificate kept
	CertificateExpiring Kind = "certificate.expiring" // Reason: expired, once it has; Detail: as of the first
	KeysApplied         Kind = "keys.applied"         // Detail: their source and number
	KeysRefused         Kind = "keys.refused"         // Detail: their source, and why
	ConfigReloaded      Kind = "config.reloaded"      // Detail: changed settings, and settings that need a restart
	ConfigRefused       Kind = "config.refused"       // Reason: refused (nothing is applied) or failed (all but the files of a part are applied), Detail: why

	ProvisionStarted  Kind = "provision.started"   // a server, by this node's hook; Detail, Elapsed
	ProvisionFailed   Kind = "provision.failed"    // Detail: why
	ProvisionMaxNodes Kind = "provision.max_nodes" // Detail: why
	ProvisionArrived  Kind = "provision.arrived"   // Detail
	ProvisionTimedOut Kind = "provision.timed_out" // Detail
	ProvisionReleased Kind = "provision.released"  // Peer, Detail
	ProvisionPlaced   Kind = "provision.placed"    // Peer, Detail, Elapsed
	ProvisionRefused  Kind = "provision.refused"   // Detail, Elapsed
)

// NotLive is the reason of a failed pull for a stream that no node publishes,
// as requested by players that wait for one.
const NotLive = "not-live"

// Event is one event. Fields that a kind does not use are empty.
type Event struct {
	Seq     uint64    `json:"seq"` // number among this node's events, from 1; 0 until the node has recorded it
	Time    time.Time `json:"time"`
	Kind    Kind      `json:"kind"`
	Stream  string    `json:"stream,omitempty"`
	Peer    peer.ID   `json:"peer,omitempty"`
	Name    string    `json:"peer_name,omitempty"` // of Peer: its own claim
	Session string    `json:"session,omitempty"`
	Role    string    `json:"role,omitempty"`     // of a session: "publisher" or "viewer"
	Client  string    `json:"client,omitempty"`   // its address, as seen from this node
	Trace   string    `json:"trace_id,omitempty"` // of its request
	Reason  string    `json:"reason,omitempty"`   // a word: of a refusal, possibly another node's, or why a session ended
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

// List is every kind.
func List() []Described {
	return []Described{
		{SessionOpened, "a client's offer was accepted"},
		{SessionClosed, "a client's session has ended"},
		{StreamStarted, "the first media of a stream has arrived from its publisher"},
		{StreamEnded, "a started stream has ended: its publisher has left, and no other has taken over"},
		{StreamWaiting, "a stream's publisher has vanished: its viewers stay for the grace, in case it comes back"},
		{StreamOrphaned, "a relayed stream is cut off from its origin: its viewers stay for the grace, and no new ones are admitted"},
		{StreamResumed, "a stream has a publisher again, or its origin is reached again"},
		{MediaStalled, "a publisher sends nothing in a section that was accepted"},
		{MediaResumed, "media has arrived after a stall"},
		{MediaChanged, "a publisher's media continues under another SSRC"},
		{MediaDropped, "packets of a publisher cannot be forwarded, or a viewer's cannot be sent in time; the status of its session counts them"},
		{PublisherReplaced, "a silent publisher's stream was taken over by a new one of the same name"},
		{Redirected, "a client was redirected to another node, since this one has no room"},
		{Refused, "a client was refused: no node has room, its offer is not acceptable, or it has no right"},
		{LinkOpened, "a cascade link to another node is up"},
		{LinkClosed, "a cascade link is closed or lost"},
		{PullStarted, "a stream is searched for at other nodes"},
		{PullWaiting, "no node with the stream has room: it is tried again"},
		{PullReady, "a stream is pulled from another node"},
		{PullFailed, "a stream could not be pulled"},
		{PullLost, "the node from which a stream was pulled is lost"},
		{PullResumed, "the stream continues from another node"},
		{PullMoved, "the stream comes from another node, since the one before is about to go"},
		{PullEnded, "a stream is no longer pulled"},
		{Placement, "a node was chosen for a client or a pull, or none was"},
		{NodeReady, "this node is in the network"},
		{NodeCopied, "another process uses this node's identity"},
		{NodeFull, "this node admits nothing more: a resource is used up"},
		{NodeFree, "this node has room again"},
		{NodeEnding, "this node is stopping"},
		{DrainStarted, "this node admits nothing new, by an operator's order"},
		{DrainEnded, "this node admits placements again"},
		{Released, "this node is stopping, since it was idle and is not needed"},
		{PeerLost, "another node no longer answers"},
		{PeerBack, "another node answers again"},
		{PolicyApplied, "another policy is in force"},
		{PolicyRefused, "a policy was not applied"},
		{CertificateApplied, "the public port has another certificate"},
		{CertificateFailed, "a certificate was not applied: the one before stays in force"},
		{CertificateExpiring, "the certificate of the public port expires soon, or has"},
		{KeysApplied, "other keys of tokens, or secrets of tickets, are in force"},
		{KeysRefused, "keys of tokens or secrets of tickets could not be read: those before stay in force"},
		{ConfigReloaded, "the configuration was read again"},
		{ConfigRefused, "the configuration was read again and is not in force, or not all of it"},
		{ProvisionStarted, "the hook has started a server"},
		{ProvisionFailed, "the hook has failed to start a server"},
		{ProvisionMaxNodes, "no server was started: max_nodes are running, or the last start is too recent"},
		{ProvisionArrived, "the started server has joined the network"},
		{ProvisionTimedOut, "the started server has not joined in time"},
		{ProvisionReleased, "an idle node was allowed to stop"},
		{ProvisionPlaced, "a waiting client was sent to the new server"},
		{ProvisionRefused, "a client waiting for a server was refused"},
	}
}
