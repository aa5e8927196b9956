// Package httpd has the HTTP servers of a node, and what its handlers share:
// replies, streams of events and their limit, and where a request comes from.
//
// [Serve] is work of its caller, and ends when its context does.
package httpd
