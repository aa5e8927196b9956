// Package tree keeps the streams of a node, and its place in the tree of each:
// where a stream is pulled from, how often and how long a carrier is looked for,
// what follows when one is lost, and when an unwatched relay lets go.
//
// In come requests for streams ([Tree.Acquire], [Tree.Await]), publishers that
// are here ([Tree.Publish], [Tree.Drop]) and what becomes of a pull, by an
// [Upstream]. Out go searches and subscriptions, by the functions of [Config],
// and events. Nothing here knows of links or media.
//
// There is one pull of a stream, however many ask for it, with one goroutine;
// and one goroutine that looks for each stream that is waited for. [Tree.Close]
// waits for all of them.
package tree
