// Package records is the protocol /records/1 of one node, at both ends.
//
// A [Server] answers requests, and is given streams: what a holder answers comes
// from package holding, what is said of a stream's name from package naming, and
// FETCH is answered from the node's own records. WATCH keeps its stream until a
// side closes it. A [Client] asks other nodes, and checks what they answer. Both
// get the peer's ID that the handshake proved. Neither owns a goroutine: what
// they begin with Config.Go or Overlay.Go ends with the node's overlay.
package records
