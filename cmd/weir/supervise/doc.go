// Package supervise says whether a node still works, and tells the service
// manager that started it: sd_notify(3) with states and a watchdog.
//
// [Notifier.Run] and [Watchdog.Run] are work of their caller. [Liveness] runs
// at most one goroutine for each part of the node, until that part answers.
package supervise
