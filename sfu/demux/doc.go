// Package demux assigns the RTP packets of one publisher to its media sections,
// and in each of them to the layers of simulcast. It has no I/O, no goroutine
// and no clock.
package demux
