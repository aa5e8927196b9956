// Package scale decides when servers are started and released.
//
// The input is a seeker's report that no node has room, an idle node's wish to
// end, the records of a region, the result of the hook that starts servers, the
// policy's bounds, and the time. The output is: start a server now, wait for
// the pending one, or a [capacity.Refusal] that says why not and when to ask
// again.
//
// [Up] and [Down] are pure: no clock, no goroutine, no network; the caller
// serializes the calls. [Queue] holds waiting requests. [Provisioners] elects
// the provisioner to ask, and asks by functions that it is given; its
// goroutines are its callers'.
package scale
