// Package certs has the certificates of a node's public port: a pair of files,
// read again when they change, or certificates by ACME (RFC 8555), renewed in
// time. Flags and their values come in; a TLS listener, the handlers of both
// ports, events, a figure and the advice of weir doctor go out.
//
// The node runs the tasks of [Certificates]; beside them only certmagic has
// goroutines, which end with the task that renews.
package certs
