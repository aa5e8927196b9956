// Package seek finds the records of other nodes and places a session or a pull
// on a node that has reserved room for it: it carries out, on the network, the
// decisions of the state machines in package place.
//
// Its input is a topic and a need. It sends queries to the topic's holders,
// requests for room to candidates, and releases for leases that are not used;
// new knowledge goes to the [Config]'s memory of records, trusts and peers.
// The result is an [Answer], or a [Decision] and where to go.
//
// A query belongs to the goroutine that called Find, Explain or Place, except
// for the parts of a search in several topics, which run concurrently and are
// merged by that goroutine. Each request has a goroutine of the overlay, which
// ends it when the node closes; those of a placement may outlive it, to release
// leases that come late. [Regions.Run], which the node runs, keeps the index of
// regions fresh.
//
// Everything that other nodes send is verified here before it is used.
package seek
