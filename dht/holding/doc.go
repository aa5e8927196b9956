// Package holding is the network side of a holder of records: it answers
// ADVERTISE, QUERY and HAND-OVER of /records/1, which package records serves,
// and takes in datagrams.
//
// The input is messages and the peer proved by the handshake; the output is
// answers. A [Holder] starts no goroutines and sends nothing. Its records are
// in a [holder.Table]; a [directory.Directory] decides which records it is to
// hold, and what it tells publishers about other holders. Holders are not
// trusted: the reader of a record verifies it.
package holding
