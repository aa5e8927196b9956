// Package hook runs the operator's hooks: a command or an HTTP request that
// starts or releases a server, and one for each event.
//
// Its input is one [Input], or events of a hub; its output is the hook's
// result, or deliveries that are signed, ordered within a stream, retried and
// counted. [Events.Run] works on the goroutine of its caller and on others that
// it waits for.
package hook
