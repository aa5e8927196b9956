// Package spans samples what is traced at a node and exports it by OTLP over HTTP.
//
// In come spans that have ended, from any goroutine, which never wait; out go
// requests to one collector. [Queue.Run] sends them on the goroutine of its caller,
// and Close, after it, what is left.
package spans
