// Package publish decides when a node publishes what, and to which holders, and
// sees to it that they get it.
//
// In come samples of the node's load, which a [Publisher] takes a few times a
// second, what holders answer, and which holders there are (a
// [directory.Directory]). Out go ADVERTISE requests and datagrams, by two
// functions of [Config]; nothing here knows a host. Records are sealed here,
// whole now and then and as updates in between, and those that the node holds
// itself go into its own table.
//
// [Publisher.Run] is one goroutine, its caller's, and samples and seals. A
// goroutine per holder that something is on its way to belongs to the Publisher;
// [Publisher.Close] waits for them. Below are three parts without a goroutine or
// a clock: schedule decides what is due, deliveries what each holder still has to
// get, and acks which datagrams wait for an answer.
package publish
