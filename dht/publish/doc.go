// Package publish decides when a node publishes which record, and to which
// holders, and delivers it to them.
//
// Its input is samples of the node's load, which a [Publisher] takes a few
// times a second, the holders' answers, and the current holders (a
// [directory.Directory]). Its output is ADVERTISE requests and datagrams, by
// two functions of [Config]; the package knows no host. It seals records, whole
// now and then and as updates in between, and puts those that the node holds
// itself into its own table.
//
// [Publisher.Run] samples and seals on its caller's goroutine. For each holder
// with pending updates the Publisher runs a goroutine; [Publisher.Close] waits
// for them. Three parts have neither a goroutine nor a clock: schedule decides
// which records are due, deliveries which updates each holder has yet to get,
// and acks which datagrams wait for an answer.
package publish
