// Package provision runs the hooks that start servers and take them away; package
// dht/scale decides when. Requests of seekers and the region's records come in,
// runs of hooks, events and counts go out.
//
// [Provisioner.Run] and [Releaser.Run] are its only work.
package provision
