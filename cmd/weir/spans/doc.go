// Package spans samples the traces of a node and exports them by OTLP over HTTP.
//
// Its input is ended spans, from any goroutine, without blocking it; its output
// is requests to one collector. [Queue.Run] sends them on the goroutine of its
// caller, and Close sends the remaining ones afterwards.
package spans
