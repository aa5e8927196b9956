// Package seek finds the records of other nodes and places a session or a pull
// on a node that has reserved room for it: it carries out, on the network, what
// the machines of package place decide.
//
// In come a topic and a need. Out go queries to the topic's holders, requests for
// room to candidates, and word to those whose lease is not used; what is learned
// on the way goes to the [Config]'s memory of records, beliefs and peers. The
// result is an [Answer], or a [Decision] and where to go.
//
// A query belongs to the goroutine that called Find, Explain or Place, but for
// the parts of a search in several topics, which run side by side and are merged
// by that goroutine. Each request has a goroutine of the overlay, which ends it
// when the node closes; those of a placement may outlive it, to give back leases
// that come late. [Seeker.Run], which the node runs, keeps the index of regions
// fresh.
//
// What others say is verified here before anything comes of it.
package seek
