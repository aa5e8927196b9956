// Package overlay is a node's part in its network: the libp2p host and kad-dht,
// joining and rejoining, the reachable peers, and requests to them and from them.
//
// Its input is addresses to join by (bootstrap peers, seeds, remembered peers,
// listed servers) and the outcome of every request. Its output is connections,
// messages (one per stream and direction, framed by capacity/frame), the members
// known, and events of peers that are lost and back. It does not interpret the
// messages: it knows no record and no topic.
//
//   - [Overlay] owns the host, and every goroutine begun by [Overlay.Go] or
//     serving a stream: Close ends and awaits them. [Overlay.Run] joins the
//     network and keeps the node in it, on goroutines that it waits for.
//   - [Peers] says which peers are connected, members and reachable. It starts
//     no goroutine.
//   - [Server] reads requests and sends answers, with a bound on how many are
//     served at once.
package overlay
