// Package tree keeps the streams of a node and its place in the distribution
// tree of each: the parent that a stream is pulled from, the search for a
// carrier and its retries, the replacement of a lost parent, and the end of an
// unwatched relay.
//
// Input is requests for streams ([Tree.Acquire], [Tree.Await]), publishers on
// this node ([Tree.Publish], [Tree.Drop]) and the end of a pull, reported by an
// [Upstream]. Output is searches and subscriptions, by the functions of
// [Config], and events. The package knows nothing of links or media.
//
// A stream has one pull for all requests, with one goroutine. Each stream that
// is waited for has one goroutine that looks it up. [Tree.Close] waits for all
// of them.
package tree
