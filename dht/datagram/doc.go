// Package datagram carries updates of records and their answers in QUIC
// datagrams (RFC 9221), where a stream would cost more than its content.
//
// The input is messages to send, and connections to read; the parts of received
// messages go to four functions of [Config], and their answers go back. On the
// wire each is a [pb.Datagram] behind the network's ID, 8 bytes.
// [Exchange.Receive] has one goroutine for each connection, which [Config.Go]
// starts and its owner waits for. [Exchange.Take] needs no connection.
package datagram
