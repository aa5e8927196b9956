// Package hook runs what operators have called when something happens: a command or
// an HTTP request that starts or releases a server, and one for each event.
//
// In come one input, or events of a hub; out go the hook's answer, or deliveries that
// are signed, ordered within a stream, tried again and counted. [Events.Run] works on
// the goroutine of its caller and those that it waits for.
package hook
