// Package overlay is a node's place among the other nodes of its network: the
// libp2p host and kad-dht, joining and rejoining, the peers that are there, and
// requests to them and from them.
//
// In come addresses to join by (bootstrap peers, seeds, remembered peers, listed
// servers) and what becomes of every request; out go connections, messages (one
// per stream and direction, framed by capacity/frame), the members known, and
// events of peers that are lost and back. The content of the messages is decided
// elsewhere: the package knows no record and no topic.
//
//   - [Overlay] owns the host, and every goroutine begun by [Overlay.Go] or
//     serving a stream: Close ends and awaits them. [Overlay.Run] joins the
//     network and keeps the node in it, on goroutines that it waits for.
//   - [Peers] says which peers are connected, members and reachable. It starts
//     no goroutine.
//   - [Server] reads requests and sends answers, so many at once.
package overlay
