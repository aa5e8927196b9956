// Package scale decides when servers are started and released.
//
// What comes in: a seeker's word that nobody has room, an idle node's wish to
// end, the records of a region, how the hook that starts servers ended, the
// policy's bounds, and the time. What goes out: start one now, wait for the one
// that is coming, or a [capacity.Refusal] that says why not and when to ask
// again.
//
// [Up] and [Down] are pure: no clock, no goroutine, no network; the caller
// serializes the calls. [Queue] holds those that wait. [Provisioners] elects who is asked, and asks by functions
// that it is given; its goroutines are its callers'.
package scale
